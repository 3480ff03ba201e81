//! The parts of the page, each drawn from a view.

use super::chart::{Chart, Line, escaped, short};
use super::pipeline;
use crate::view::{Phase, View};
use orchestrator_core::Ending;
use std::fmt::Write;

/// A part of the page: what it is called, and its content.
pub struct Section {
    /// The element's id; `/events` sends new content under this name.
    pub name: &'static str,
    /// Whether it takes the page's whole width.
    pub wide: bool,
    /// HTML.
    pub html: String,
}

impl Section {
    /// A part over the whole width with a heading; `html` is markup already.
    pub fn new(name: &'static str, heading: &str, html: &str) -> Self {
        Self { name, wide: true, html: format!("<h2>{}</h2>{html}", escaped(heading)) }
    }
}

/// All parts, in the order of the page.
pub fn of(view: &View) -> Vec<Section> {
    let section = |name, wide, html| Section { name, wide, html };
    vec![
        section("now", true, now(view)),
        section("loss", false, loss(view)),
        section("rate", false, rate(view)),
        section("pipeline", true, format!("<h2>Pipeline</h2>{}", pipeline::svg(view))),
        section("audits", false, audits(view)),
        section("wire", false, wire(view)),
        section("epochs", true, epochs(view)),
        section("log", true, log(view)),
    ]
}

fn now(view: &View) -> String {
    let (class, state) = match &view.ending {
        None => ("", view.phase.to_string()),
        Some(Ending::Complete) => ("good", "complete".into()),
        Some(Ending::Stopped) => ("warn", "stopped as asked".into()),
        Some(Ending::Failed { why }) => ("bad", format!("failed: {why}")),
    };
    let facts = &view.facts;
    let mut html = format!(
        "<p><b class=\"{class}\">{}</b> <span class=\"soft\">run {}, {} parameters in {} stages of {} miners</span></p>\
         <progress max=\"{}\" value=\"{}\"></progress><div class=\"tiles\">",
        escaped(&state),
        escaped(&facts.id),
        short(facts.parameters as f64),
        facts.stages,
        facts.miners_per_stage,
        view.steps_total.max(1),
        view.steps
    );
    let nats = |value: Option<f64>| value.map_or("-".into(), |nats| format!("{nats:.3}"));
    // Between epochs no token is made; the last rate stands, and the phase says why.
    let rate = match view.phase {
        Phase::Ended => view.tokens_per_second,
        _ => view.rate_now(),
    };
    let left = match (&view.ending, view.seconds_left()) {
        (None, Some(seconds)) => duration(seconds),
        _ => "-".into(),
    };
    let tiles = [
        ("nats per token", nats(view.last_nats)),
        ("tokens/s", short(rate)),
        ("steps", format!("{}/{}", view.steps, view.steps_total)),
        ("tokens", short(view.tokens as f64)),
        ("epochs committed", format!("{}/{}", view.commits.len(), facts.epochs)),
        ("audits equal", view.audits_equal.to_string()),
        ("left", left),
    ];
    for (what, value) in tiles {
        let _ = write!(html, "<div class=\"tile\"><b>{}</b>{what}</div>", escaped(&value));
    }
    html.push_str("</div>");
    html
}

fn loss(view: &View) -> String {
    let lines = [Line { name: "", points: view.loss.points(), marked: false }];
    let (title, x, y) = ("Training loss", "tokens", "nats per token");
    Chart { title, x, y, from_zero: false, lines: &lines }.svg()
}

fn rate(view: &View) -> String {
    let lines = [Line { name: "", points: view.rate.points(), marked: false }];
    Chart { title: "Throughput", x: "seconds", y: "tokens/s", from_zero: true, lines: &lines }.svg()
}

fn audits(view: &View) -> String {
    let mut html = format!(
        "<h2>Audits and evidence</h2><p>{} windows replayed with every digest equal, \
         <span class=\"{}\">{} not</span></p>",
        view.audits_equal,
        if view.audits_unequal.is_empty() { "good" } else { "bad" },
        view.audits_unequal.len()
    );
    for finding in &view.audits_unequal {
        let _ = write!(html, "<p class=\"bad\">{}</p>", escaped(finding));
    }
    if !view.audits_unequal.is_empty() {
        html.push_str("<p>Evidence lies in the run's folder; <code>iota verify evidence FILE</code> decides it alone.</p>");
    }
    html
}

fn wire(view: &View) -> String {
    let (plain, sent) = (view.wire_bytes_plain as f64, view.wire_bytes_sent as f64);
    let mut html = format!(
        "<h2>Wire</h2><table><tr><td>tensors from miner to miner</td><td class=\"n\">{}</td></tr>\
         <tr><td>as {} blocks</td><td class=\"n\">{}B</td></tr><tr><td>after lossless packing</td>\
         <td class=\"n\">{}B</td></tr>",
        short(view.wire_frames as f64),
        escaped(&view.facts.boundary),
        short(plain),
        short(sent)
    );
    if view.wire_direct.frames > 0 {
        let _ = write!(
            html,
            "<tr><td>of that without the relay</td><td class=\"n\">{}B</td></tr>",
            short(view.wire_direct.bytes_sent as f64)
        );
    }
    if plain > 0.0 {
        let _ = write!(
            html,
            "<tr><td>saved by packing</td><td class=\"n\">{:.1} %</td></tr>",
            100.0 * (1.0 - sent / plain)
        );
    }
    if view.tokens > 0 {
        let _ = write!(
            html,
            "<tr><td>sent per token trained on</td><td class=\"n\">{}B</td></tr>",
            short(sent / view.tokens as f64)
        );
    }
    html.push_str("</table>");
    html
}

fn epochs(view: &View) -> String {
    let mut html = format!(
        "<h2>Epochs</h2><p>{} began again, {} tokens of work lost.</p><table><tr><th class=\"n\">epoch</th>\
         <th class=\"n\">opened</th><th class=\"n\">work</th><th class=\"n\">merge</th><th class=\"n\">nats</th>\
         <th class=\"n\">began again</th><th>manifest</th></tr>",
        view.rewinds,
        short(view.tokens_lost as f64)
    );
    let between = |from: Option<u64>, to: Option<u64>| match (from, to) {
        (Some(from), Some(to)) => duration(to.saturating_sub(from) as f64 / 1e3),
        _ => "-".into(),
    };
    for line in &view.epochs {
        let manifest = view.commits.iter().find(|(epoch, _)| *epoch == line.epoch);
        let manifest = manifest.map_or("", |(_, digest)| digest.get(..16).unwrap_or(digest));
        let _ = write!(
            html,
            "<tr><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{}</td>\
             <td class=\"n\">{}</td><td class=\"n\">{}</td><td><code>{manifest}</code></td></tr>",
            line.epoch,
            duration(line.opened_ms as f64 / 1e3),
            between(Some(line.opened_ms), line.worked_ms),
            between(line.worked_ms, line.committed_ms),
            line.nats.map_or("-".into(), |nats| format!("{nats:.3}")),
            line.rewinds,
        );
    }
    html.push_str("</table>");
    html
}

fn log(view: &View) -> String {
    let mut html = String::from("<h2>Events</h2><div class=\"log\">");
    for (ms, sentence) in view.log.iter().rev() {
        let at = duration(*ms as f64 / 1e3);
        let _ = write!(html, "<div><time>{at}</time>{}</div>", escaped(sentence));
    }
    html.push_str("</div>");
    html
}

/// Seconds as a person says them.
fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{:.0} min {:02.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
        s => format!("{:.0} h {:02.0} min", (s / 3600.0).floor(), (s % 3600.0 / 60.0).floor()),
    }
}
