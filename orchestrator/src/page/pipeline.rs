//! The pipeline as a picture: stages from head to tail, the miners of each, the validators.

use super::chart::escaped;
use crate::view::{Node, Presence, View};
use spec::NodeId;
use std::fmt::Write;

const BOX: f64 = 190.0;
const GAP: f64 = 50.0;
const ROW: f64 = 26.0;
const TOP: f64 = 52.0;

/// The picture as an `<svg>` element.
pub fn svg(view: &View) -> String {
    let stages = view.facts.stages.max(1);
    let of = |stage: usize| -> Vec<(&NodeId, &Node)> {
        view.nodes.iter().filter(|(_, node)| node.stage.map(usize::from) == Some(stage)).collect()
    };
    let validators: Vec<(&NodeId, &Node)> =
        view.nodes.iter().filter(|(_, node)| node.stage.is_none()).collect();
    let seats = usize::from(view.facts.miners_per_stage).max(1);
    let rows = (0..stages).map(|stage| of(stage).len()).max().unwrap_or(0).max(seats).max(validators.len());
    let height = TOP + ROW * rows as f64 + 22.0;
    let columns = stages + usize::from(!validators.is_empty());
    let width = columns as f64 * (BOX + GAP) - GAP + 4.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\" role=\"img\" style=\"max-width:{}px\">\n<g fill=\"var(--ink,#222)\">\n",
        width * 1.3
    );
    for stage in 0..stages {
        let left = 2.0 + stage as f64 * (BOX + GAP);
        let name = match stage {
            _ if stages == 1 => "the whole model".into(),
            0 => "stage 0, head".into(),
            _ if stage + 1 == stages => format!("stage {stage}, tail"),
            _ => format!("stage {stage}"),
        };
        column(&mut svg, left, height, &name, &of(stage));
        if stage + 1 < stages {
            let (from, to, y) = (left + BOX + 4.0, left + BOX + GAP - 6.0, TOP);
            let _ = writeln!(
                svg,
                "<path d=\"M{from} {y}H{to}m-6 -4l6 4l-6 4\" fill=\"none\" stroke=\"var(--line-0,#1f77b4)\" \
                 stroke-width=\"2\"/><path d=\"M{to} {}H{from}m6 -4l-6 4l6 4\" fill=\"none\" \
                 stroke=\"var(--line-1,#d62728)\" stroke-width=\"2\"/>",
                y + 18.0
            );
        }
    }
    if !validators.is_empty() {
        let left = 2.0 + stages as f64 * (BOX + GAP);
        column(&mut svg, left, height, "validators", &validators);
    }
    svg.push_str("</g></svg>");
    svg
}

fn column(svg: &mut String, left: f64, height: f64, name: &str, nodes: &[(&NodeId, &Node)]) {
    let _ = writeln!(
        svg,
        "<rect x=\"{left}\" y=\"2\" width=\"{BOX}\" height=\"{}\" rx=\"8\" fill=\"none\" stroke=\"var(--rule,#ccc)\" \
         stroke-width=\"2\"/><text x=\"{}\" y=\"24\" font-weight=\"600\">{}</text>",
        height - 4.0,
        left + 12.0,
        escaped(name)
    );
    if nodes.is_empty() {
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" fill=\"var(--bad,#c92a2a)\">nobody yet</text>",
            left + 12.0,
            TOP + 4.0
        );
    }
    for (row, (id, node)) in nodes.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let (colour, word) = match node.presence {
            Presence::Here => ("var(--good,#2b8a3e)", ""),
            Presence::Suspected => ("var(--warn,#d9860b)", " silent"),
            Presence::Gone => ("var(--bad,#c92a2a)", " gone"),
        };
        let audits = match (node.equal, node.unequal) {
            (0, 0) => String::new(),
            (equal, 0) => format!(", {equal} equal"),
            (equal, unequal) => format!(", {equal} equal, {unequal} not"),
        };
        let _ = writeln!(
            svg,
            "<circle cx=\"{}\" cy=\"{}\" r=\"6\" fill=\"{colour}\"/><text x=\"{}\" y=\"{}\">{}{word}{audits}</text>",
            left + 18.0,
            y,
            left + 32.0,
            y + 4.5,
            escaped(&id.short())
        );
    }
}
