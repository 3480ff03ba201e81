//! Line charts as SVG that needs nothing else: colours are the page's, or fallbacks where it stands alone.

use std::fmt::Write;

const WIDTH: f64 = 800.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 64.0;
const TOP: f64 = 36.0;
const RIGHT: f64 = 20.0;
const BOTTOM: f64 = 48.0;
/// Points drawn at most; more say no more on this many pixels.
const POINTS_MAX: usize = 1500;
/// Lines' colours; the page may set others.
const COLOURS: [&str; 3] = ["var(--line-0,#1f77b4)", "var(--line-1,#d62728)", "var(--line-2,#2ca02c)"];

/// One line of a chart.
pub struct Line<'a> {
    /// What it shows.
    pub name: &'a str,
    /// Points, x ascending.
    pub points: &'a [(f64, f64)],
    /// Mark each point: for a few that matter.
    pub marked: bool,
}

/// A chart: its title, what the axes count, and its lines. `from_zero` makes the vertical axis begin at 0.
pub struct Chart<'a> {
    /// Above the drawing, left.
    pub title: &'a str,
    /// Under the drawing.
    pub x: &'a str,
    /// What the lines count, above the drawing, right.
    pub y: &'a str,
    /// Whether the vertical axis begins at 0.
    pub from_zero: bool,
    /// The lines.
    pub lines: &'a [Line<'a>],
}

impl Chart<'_> {
    /// The chart as an `<svg>` element.
    pub fn svg(&self) -> String {
        let all = || self.lines.iter().flat_map(|line| line.points);
        let last = all().map(|p| p.0).fold(0.0, f64::max);
        let last = if last > 0.0 { last } else { 1.0 };
        let (low, high) = self.bounds();
        let x = |at: f64| LEFT + at / last * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"13\" role=\"img\">\n<rect width=\"100%\" height=\"100%\" fill=\"var(--paper,white)\"/>\n\
             <g fill=\"var(--ink,#222)\"><text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n",
            escaped(self.title)
        );
        for value in ticks(low, high) {
            let at = y(value);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"var(--rule,#ddd)\"/><text x=\"{}\" \
                 y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0,
                short(value),
            );
        }
        for value in ticks(0.0, last) {
            let (at, under) = (x(value), HEIGHT - BOTTOM + 18.0);
            let label = short(value);
            let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{under}\" text-anchor=\"middle\">{label}</text>");
        }
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text><text x=\"{}\" y=\"22\" text-anchor=\"end\">{}",
            WIDTH / 2.0,
            HEIGHT - 10.0,
            escaped(self.x),
            WIDTH - RIGHT,
            escaped(self.y),
        );
        for (line, colour) in self.lines.iter().zip(COLOURS).filter(|(line, _)| !line.name.is_empty()) {
            let _ = write!(svg, " <tspan fill=\"{colour}\">{}</tspan>", escaped(line.name));
        }
        svg.push_str("</text></g>\n");
        for (line, colour) in self.lines.iter().zip(COLOURS) {
            let points = thinned(line.points);
            let path: Vec<String> =
                points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value))).collect();
            let _ = writeln!(
                svg,
                "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\" points=\"{}\"/>",
                path.join(" ")
            );
            for (at, value) in points.iter().filter(|_| line.marked) {
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                    x(*at),
                    y(*value)
                );
            }
        }
        svg.push_str("</svg>");
        svg
    }

    /// What the vertical axis spans: a little more than the values, never nothing.
    fn bounds(&self) -> (f64, f64) {
        let values = || self.lines.iter().flat_map(|line| line.points).map(|p| p.1);
        let (low, high) = values().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return (0.0, 1.0);
        }
        let low = if self.from_zero { 0.0 } else { low };
        let room = if high > low { 0.05 * (high - low) } else { high.abs().max(1.0) * 0.5 };
        (if self.from_zero { 0.0 } else { low - room }, high + room)
    }
}

/// Round numbers from `low` to `high`, about five: multiples of 1, 2 or 5 times a power of ten.
fn ticks(low: f64, high: f64) -> impl Iterator<Item = f64> {
    let rough = (high - low) / 5.0;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0].map(|m| m * power).into_iter().find(|step| *step >= rough * 0.99);
    let step = step.unwrap_or(10.0 * power);
    let (first, last) = ((low / step).ceil(), (high / step * (1.0 + 1e-9)).floor());
    // Added to zero, lest the first be written as -0.
    (0..).map(move |n| first + f64::from(n)).take_while(move |n| *n <= last).map(move |n| n * step + 0.0)
}

fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let stride = points.len().div_ceil(POINTS_MAX).max(1);
    let mean = |chunk: &[(f64, f64)]| {
        let count = chunk.len() as f64;
        let sum = chunk.iter().fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
        (sum.0 / count, sum.1 / count)
    };
    points.chunks(stride).map(mean).collect()
}

/// A number in as few characters as say it: 1.25, 819k, 2.3M.
pub fn short(value: f64) -> String {
    match value.abs() {
        v if v >= 1e9 => format!("{:.1}G", value / 1e9),
        v if v >= 1e6 => format!("{:.1}M", value / 1e6),
        v if v >= 1e4 => format!("{:.0}k", value / 1e3),
        v if v >= 1e3 && value % 1e3 == 0.0 => format!("{:.0}k", value / 1e3),
        v if v >= 1e3 => format!("{:.1}k", value / 1e3),
        v if v >= 100.0 || value == 0.0 => format!("{value:.0}"),
        _ => {
            let text = format!("{value:.2}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

/// Text that cannot become markup.
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_lies_on_the_paper() {
        let points: Vec<(f64, f64)> =
            (1..=4000).map(|n| (f64::from(n), 5.5 - f64::from(n) / 1000.0)).collect();
        let line = Line { name: "training", points: &points, marked: false };
        let lines = [line, Line { name: "held out", points: &[(4000.0, 1.7)], marked: true }];
        let chart = Chart { title: "a < b", x: "steps", y: "nats", from_zero: false, lines: &lines };
        let svg = chart.svg();
        assert!(svg.contains("a &lt; b") && svg.ends_with("</svg>") && !svg.contains("NaN"));
        let drawn = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let pairs: Vec<(f64, f64)> = drawn
            .split(' ')
            .map(|pair| pair.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap())).unwrap())
            .collect();
        assert!(pairs.len() <= POINTS_MAX && pairs.len() > 1000);
        assert!(pairs.iter().all(|(x, y)| (LEFT..=WIDTH).contains(x) && (TOP..=HEIGHT - BOTTOM).contains(y)));
        assert!(pairs.is_sorted_by(|a, b| a.1 < b.1), "a falling loss goes down the paper");
        assert_eq!(svg.matches("<circle").count(), 1);
    }

    #[test]
    fn an_empty_chart_and_a_flat_line_are_drawn() {
        for points in [&[][..], &[(3.0, 2.0)], &[(1.0, 0.0), (2.0, 0.0)]] {
            let lines = [Line { name: "", points, marked: false }];
            let svg = Chart { title: "", x: "", y: "", from_zero: true, lines: &lines }.svg();
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
        assert_eq!(ticks(5.87, 9.0).map(short).collect::<Vec<_>>(), ["6", "7", "8", "9"]);
        assert_eq!(ticks(0.0, 86_000.0).map(short).collect::<Vec<_>>(), ["0", "20k", "40k", "60k", "80k"]);
        assert_eq!([0.0, 1.254, 819_200.0, 2_340_000.0].map(short), ["0", "1.25", "819k", "2.3M"]);
    }
}
