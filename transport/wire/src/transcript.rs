//! A conversation as text that a person can read and a test can compare.

use spec::NodeId;
use std::fmt::{Display, Write};

/// Lines of what happened, each followed by what was done about it.
#[derive(Debug, Clone, Default)]
pub struct Transcript {
    text: String,
    names: Vec<(String, String)>,
}

impl Transcript {
    /// Calls a node `name` wherever its short key stands in a line to come.
    pub fn name(&mut self, node: NodeId, name: &str) {
        self.names.push((node.short(), name.to_owned()));
    }

    /// A heading.
    pub fn title(&mut self, title: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        self.line(format_args!("{gap}# {title}"));
    }

    /// Something happened at `now_ms`.
    pub fn event(&mut self, now_ms: u64, event: &impl Display) {
        self.line(format_args!("{now_ms:>6} {event}"));
    }

    /// And this was done about it.
    pub fn effect(&mut self, effect: &impl Display) {
        self.line(format_args!("         -> {effect}"));
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let named = self.names.iter().fold(line.to_string(), |line, (short, name)| line.replace(short, name));
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "{named}");
    }
}
