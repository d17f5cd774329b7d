#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the numbers of our own tables are small"
)]

use super::*;

/// What a row of a table says: family or server, modality, facts, tokens.
fn rows(table: &str) -> impl Iterator<Item = (&str, Modality, Facts, u64)> {
    table.lines().filter(|line| !line.starts_with('#')).skip(1).map(|line| {
        let cells: Vec<&str> = line.split('\t').collect();
        let number = |place: usize| cells[place].parse::<f64>().ok();
        let size = number(2).zip(number(3)).map(|(w, h)| (w as u32, h as u32));
        let milliseconds = number(4).map(|seconds| (seconds * 1000.0).round() as u64);
        let frames = number(4).zip(number(5)).map(|(seconds, rate)| (seconds * rate).round() as u32);
        let facts = Facts { size, milliseconds, frames, ..Facts::default() };
        (cells[0], cells[1].parse().unwrap(), facts, cells[6].parse().unwrap())
    })
}

fn check(name: &str, estimate: u64, counted: u64, tolerance: f64) {
    let off = (estimate as f64 - counted as f64).abs() / counted as f64;
    assert!(off <= tolerance, "{name}: {estimate} estimated, {counted} counted, {:.1} % off", off * 100.0);
}

/// The published formulas, transcribed by somebody else. Videos may differ by what is written around each frame.
#[test]
fn the_published_formulas_are_met() {
    let mut seen = 0;
    for (family, modality, facts, tokens) in rows(include_str!("../../testdata/tokens-published.tsv")) {
        let known: Family = family.parse().unwrap();
        let name = format!("{family} {modality} {facts:?}");
        let estimate = estimate(known, modality, &facts).unwrap_or_else(|| panic!("{name}: no estimate"));
        check(&name, estimate, tokens, if modality == Modality::Video { 0.03 } else { 0.0 });
        seen += 1;
    }
    assert!(seen > 200, "{seen} rows");
}

/// What vLLM 0.32 counted (`usage.prompt_tokens_details.multimodal_tokens`) for tiny models. Those that take pictures were built with
/// bounds of their own, which are used here; everything else is as published.
#[test]
fn a_real_vllm_counts_the_same() {
    let tiny = Resized { unit: 28, min_pixels: 784, max_pixels: 50_176 };
    let mut seen = 0;
    for (server, modality, facts, tokens) in rows(include_str!("../../testdata/tokens-vllm-0.32.tsv")) {
        let (width, height) = facts.size.unwrap_or_default();
        let estimate = match (server, modality) {
            ("tiny-vl" | "tiny-omni", Modality::Image) => tiny.tokens(width, height),
            ("tiny-vl", Modality::Video) => {
                let rate = facts.frame_rate();
                Sampling::Pairs.frames(seconds(&facts).unwrap(), rate).div_ceil(2) * tiny.tokens(width, height)
            }
            ("tiny-omni", _) => estimate(Family::Qwen25Omni, modality, &facts).unwrap(),
            ("tiny-audio", _) => estimate(Family::Qwen2Audio, modality, &facts).unwrap(),
            other => panic!("{other:?} is not expected"),
        };
        check(&format!("{server} {modality} {facts:?}"), estimate, tokens, 0.0);
        seen += 1;
    }
    assert!(seen > 100, "{seen} rows");
}

#[test]
fn what_is_not_known_is_not_guessed() {
    assert_eq!(estimate(Family::Qwen2Vl, Modality::Image, &Facts::default()), None);
    let sized = Facts { size: Some((10, 10)), ..Facts::default() };
    assert_eq!(estimate(Family::Whisper, Modality::Image, &sized), None);
    assert_eq!(estimate(Family::Qwen2Vl, Modality::Text, &sized), None);
}

/// Hostile headers claim anything.
#[test]
fn absurd_claims_give_absurd_estimates_and_no_panic() {
    for size in [(0, 0), (1, u32::MAX), (u32::MAX, 1), (u32::MAX, u32::MAX)] {
        for milliseconds in [0, 1, u64::MAX] {
            for frames in [0, 1, u32::MAX] {
                let facts = Facts {
                    size: Some(size),
                    milliseconds: Some(milliseconds),
                    frames: Some(frames),
                    ..Facts::default()
                };
                for family in Family::ALL {
                    for modality in Modality::ALL {
                        let _ = estimate(family, modality, &facts);
                    }
                }
            }
        }
    }
}
