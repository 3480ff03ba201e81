//! The loss as a picture: one SVG file that needs nothing else.

use std::fmt::Write;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 450.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const RIGHT: f64 = 20.0;
const BOTTOM: f64 = 50.0;
/// Points drawn at most; more say no more on this many pixels.
const POINTS_MAX: usize = 1500;

/// Loss over steps: `points` of (step, nats) from training, `judged` of (step, nats) from the validation shard.
pub fn loss(title: &str, points: &[(u64, f64)], judged: &[(u64, f64)]) -> String {
    let all = || points.iter().chain(judged);
    let last = all().map(|p| p.0).max().unwrap_or(1).max(1) as f64;
    let (low, high) = all().fold((f64::MAX, f64::MIN), |(low, high), p| (low.min(p.1), high.max(p.1)));
    let (low, high) =
        if low > high { (0.0, 1.0) } else { ((low * 2.0).floor() / 2.0, (high * 2.0).ceil() / 2.0) };
    let high = high.max(low + 0.5);
    let x = |step: f64| LEFT + step / last * (WIDTH - LEFT - RIGHT);
    let y = |nats: f64| TOP + (high - nats) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"24\" \
         font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    for tick in 0..=5 {
        let share = f64::from(tick) / 5.0;
        let (nats, step) = (low + share * (high - low), share * last);
        let (at_x, at_y) = (x(step), y(nats));
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at_y:.1}\" y2=\"{at_y:.1}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\">{nats:.2}</text><text x=\"{at_x:.1}\" y=\"{}\" text-anchor=\"middle\">{step:.0}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at_y + 4.0,
            HEIGHT - BOTTOM + 18.0,
        );
    }
    let line = |points: &[(u64, f64)]| -> String {
        let stride = points.len().div_ceil(POINTS_MAX).max(1);
        let means = points.chunks(stride).map(|chunk| {
            let count = chunk.len() as f64;
            let step = chunk.iter().map(|p| p.0 as f64).sum::<f64>() / count;
            format!("{:.1},{:.1}", x(step), y(chunk.iter().map(|p| p.1).sum::<f64>() / count))
        });
        means.collect::<Vec<_>>().join(" ")
    };
    let _ = writeln!(
        svg,
        "<polyline fill=\"none\" stroke=\"#1f77b4\" stroke-width=\"1.2\" points=\"{}\"/>\n<polyline fill=\"none\" \
         stroke=\"#d62728\" stroke-width=\"2\" points=\"{}\"/>",
        line(points),
        line(judged)
    );
    for (step, nats) in judged {
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"#d62728\"/>",
            x(*step as f64),
            y(*nats)
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">steps</text><text x=\"{}\" y=\"24\" text-anchor=\"end\">nats per \
         token: <tspan fill=\"#1f77b4\">training</tspan>, <tspan fill=\"#d62728\">held out</tspan></text>\n</svg>",
        WIDTH / 2.0,
        HEIGHT - 10.0,
        WIDTH - RIGHT
    );
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_lies_on_the_paper() {
        let points: Vec<(u64, f64)> = (1..=4000).map(|n| (n, 5.5 - n as f64 / 1000.0)).collect();
        let svg = loss("a < b", &points, &[(4000, 1.7)]);
        assert!(svg.contains("a &lt; b") && svg.trim_end().ends_with("</svg>") && !svg.contains("NaN"));
        let drawn = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let pairs: Vec<(f64, f64)> = drawn
            .split(' ')
            .map(|pair| pair.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).unwrap())
            .collect();
        assert!(pairs.len() <= POINTS_MAX && pairs.len() > 1000);
        assert!(pairs.iter().all(|(x, y)| (LEFT..=WIDTH).contains(x) && (TOP..=HEIGHT - BOTTOM).contains(y)));
        assert!(pairs.is_sorted_by(|a, b| a.1 < b.1), "a falling loss goes down the paper");
        assert!(!loss("empty", &[], &[]).contains("NaN"));
    }
}
