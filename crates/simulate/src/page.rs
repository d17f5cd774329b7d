//! Outcomes as a page with plots, that needs nothing but itself.

use std::fmt::Write as _;

use crate::policy::{Part, PolicyName};
use crate::report::{Row, Simulated, middle};

/// A plot of one number over the load.
struct Plot {
    title: &'static str,
    of: fn(&Row) -> f64,
    /// Whether it grows by factors.
    is_log: bool,
}

const PLOTS: [Plot; 3] = [
    Plot { title: "first token, median, ms", of: |row| middle(&row.p50), is_log: true },
    Plot { title: "first token, 99th percentile, ms", of: |row| middle(&row.p99), is_log: true },
    Plot { title: "requests in time, a second", of: |row| middle(&row.goodput), is_log: false },
];

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 220.0;
const MARGIN: f64 = 44.0;

/// Colours that those who see few of them can tell apart (Okabe and Ito); ours are the darkest and thickest.
const fn colour(policy: PolicyName) -> &'static str {
    match policy {
        PolicyName::RoundRobin | PolicyName::ThalamusWithout(Part::Metrics) => "#999999",
        PolicyName::Random => "#cccccc",
        PolicyName::LeastRequests | PolicyName::ThalamusWithout(Part::Queue) => "#e69f00",
        PolicyName::PowerOfTwo => "#f0e442",
        PolicyName::LlmD | PolicyName::ThalamusWithout(Part::Prefixes) => "#56b4e9",
        PolicyName::LlmDMultimodal => "#0072b2",
        PolicyName::LMetric | PolicyName::ThalamusWithout(Part::Media) => "#cc79a7",
        PolicyName::Thalamus => "#d55e00",
        PolicyName::ThalamusUntold => "#009e73",
    }
}

/// A page of all scenarios: three plots over the load each, and their numbers.
pub fn page(all: &[Simulated<'_>], policies: &[PolicyName]) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>A fleet in virtual time</title><style>\
         :root{color-scheme:light dark}body{font:14px system-ui;margin:2em auto;max-width:1160px}svg{overflow:visible}\
         text{font:11px system-ui;fill:currentColor}.plots{display:flex;flex-wrap:wrap;gap:16px}\
         pre{overflow-x:auto;font:12px ui-monospace,monospace}i{display:inline-block;width:1em;height:.7em;margin:0 .4em 0 1em}\
         </style><h1>A fleet in virtual time</h1><p>",
    );
    for policy in policies {
        _ = write!(page, "<i style=\"background:{}\"></i>{}", colour(*policy), policy.as_str());
    }
    page += "</p>";
    for (name, scenario, rows) in all {
        _ = write!(page, "<h2>{}</h2><p>{}</p><div class=\"plots\">", escaped(name), escaped(&scenario.about));
        for plot in &PLOTS {
            page += &drawn(plot, rows, policies);
        }
        _ = write!(
            page,
            "</div><details><summary>Numbers</summary><pre>{}</pre></details>",
            escaped(&crate::report::table(rows))
        );
    }
    page + "</html>\n"
}

fn drawn(plot: &Plot, rows: &[Row], policies: &[PolicyName]) -> String {
    let scale = |value: f64| if plot.is_log { value.max(1.0).log10() } else { value };
    let values = rows.iter().map(|row| scale((plot.of)(row)));
    let (least, most) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), value| (a.min(value), b.max(value)));
    let least = if plot.is_log { least.floor() } else { 0.0 };
    let most = if plot.is_log { most.ceil().max(least + 1.0) } else { most.max(1.0) };
    let widest = rows.iter().map(|row| row.rate).fold(1.0, f64::max);
    let x = |rate: f64| MARGIN + rate / widest * (WIDTH - MARGIN);
    let y = |value: f64| HEIGHT - MARGIN - (scale(value) - least) / (most - least) * (HEIGHT - 2.0 * MARGIN);
    let mut svg = format!("<svg width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" aria-label=\"{}\">", plot.title);
    _ = write!(svg, "<text x=\"{MARGIN}\" y=\"{}\">{}</text>", MARGIN - 14.0, plot.title);
    let ticks = if plot.is_log { (most - least) as usize } else { 4 };
    for tick in 0..=ticks {
        let at = least + (most - least) * tick as f64 / ticks as f64;
        let value = if plot.is_log { 10_f64.powf(at) } else { at };
        let y = y(value);
        _ = write!(
            svg,
            "<line x1=\"{MARGIN}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"currentColor\" opacity=\".15\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.0}</text>",
            MARGIN - 5.0,
            y + 4.0,
        );
    }
    let mut rates: Vec<f64> = rows.iter().map(|row| row.rate).collect();
    rates.sort_by(f64::total_cmp);
    rates.dedup();
    for rate in &rates {
        _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{rate}</text>",
            x(*rate),
            HEIGHT - MARGIN + 16.0
        );
    }
    for &policy in policies {
        let points = rows.iter().filter(|row| row.policy == policy);
        let points: Vec<String> = points.map(|row| format!("{:.1},{:.1}", x(row.rate), y((plot.of)(row)))).collect();
        let (colour, width) = (colour(policy), if policy.is_ours() { 3 } else { 1 });
        _ = write!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\">",
            points.join(" ")
        );
        _ = write!(svg, "<title>{}</title></polyline>", policy.as_str());
    }
    svg + "</svg>"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
