//! vLLM's metrics as load. Names: <https://docs.vllm.ai/en/latest/usage/metrics/>.

use scheduling::Load;

/// Reads the Prometheus text format. A server with several engines has a series for each: requests add up, and the fullest cache
/// counts. What is not there stays 0.
pub(crate) fn load(text: &str) -> Load {
    let mut load = Load::default();
    for line in text.lines().filter(|line| line.starts_with("vllm:")) {
        let Some((name, value)) = series(line) else { continue };
        match name {
            "vllm:num_requests_waiting" => load.waiting = load.waiting.saturating_add(count(value)),
            "vllm:num_requests_running" => load.running = load.running.saturating_add(count(value)),
            // The second is what releases before 0.10 called it.
            "vllm:kv_cache_usage_perc" | "vllm:gpu_cache_usage_perc" => {
                load.kv_cache_usage = load.kv_cache_usage.max(ratio(value));
            }
            _ => {}
        }
    }
    load
}

/// `name{labels} value timestamp` as name and value. Labels may hold spaces and braces in quotes, so the value is what follows the last
/// brace.
fn series(line: &str) -> Option<(&str, f64)> {
    let name = &line[..line.find(['{', ' '])?];
    let after = line.rfind('}').map_or(&line[name.len()..], |brace| &line[brace + 1..]);
    Some((name, after.split_whitespace().next()?.parse().ok()?))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a cast from float saturates, and NaN becomes 0"
)]
fn count(value: f64) -> u32 {
    value as u32
}

#[expect(clippy::cast_possible_truncation, reason = "a ratio")]
fn ratio(value: f64) -> f32 {
    if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_add_up_and_the_fullest_cache_counts() {
        let text = "# HELP vllm:num_requests_running n\n\
            vllm:num_requests_running{engine=\"0\",model_name=\"a } 9\"} 3.0\n\
            vllm:num_requests_running{engine=\"1\",model_name=\"a\"} 4.0 1700000000\n\
            vllm:num_requests_waiting{engine=\"0\"} 2\n\
            vllm:num_requests_waiting_by_reason{reason=\"capacity\"} 2\n\
            vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\n\
            vllm:kv_cache_usage_perc{engine=\"1\"} 0.75\n\
            vllm:num_requests_running_total NaN\n\
            process_cpu_seconds_total 7\n";
        let load = load(text);
        assert_eq!((load.running, load.waiting), (7, 2));
        assert!((load.kv_cache_usage - 0.75).abs() < f32::EPSILON);
    }

    #[test]
    fn nonsense_is_no_load() {
        assert_eq!(
            load("vllm:\nvllm:num_requests_waiting\nvllm:num_requests_waiting{ x\nvllm:kv_cache_usage_perc{} NaN\n"),
            Load::default()
        );
        assert_eq!(load("vllm:num_requests_waiting -5\nvllm:num_requests_running 1e99\n").waiting, 0);
    }
}
