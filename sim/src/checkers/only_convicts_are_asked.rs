//! Nobody is asked what its ops gave but who was convicted of it just now, by a verdict that a second check bore out; and once
//! it is asked, it hears of nothing else.

use super::{Checker, End};
use crate::trace::{Effect, Entry, Event, What};
use orchestrator_core::{Confirmation, Effect as Wanted, Event as Happened, Report};
use spec::NodeId;
use std::collections::BTreeSet;
use wire::Message;

/// Looks at whom the orchestrator asks, and at what else it says to them.
#[derive(Debug, Default)]
pub struct OnlyConvictsAreAsked {
    /// The nodes whose work is tampered with.
    pub cheats: BTreeSet<NodeId>,
    /// Whether what happens now is that a second check bore an accusation out.
    proven: bool,
    convicted: BTreeSet<NodeId>,
    asked: BTreeSet<NodeId>,
}

impl OnlyConvictsAreAsked {
    /// A checker that knows who cheats.
    pub fn new(cheats: BTreeSet<NodeId>) -> Self {
        Self { cheats, ..Self::default() }
    }

    fn ask(&mut self, node: NodeId) -> Result<(), String> {
        let due = self.proven && self.convicted.contains(&node) && self.cheats.contains(&node);
        if due && self.asked.insert(node) {
            return Ok(());
        }
        Err(format!(
            "{} is asked what its ops gave, though no second check convicted it just now",
            node.short()
        ))
    }
}

impl Checker for OnlyConvictsAreAsked {
    fn name(&self) -> &'static str {
        "only_convicts_are_asked"
    }

    fn observe(&mut self, entry: &Entry) -> Result<(), String> {
        match &entry.what {
            What::Event(Event::Orchestrator(happened)) => {
                let proven = Confirmation::Proven;
                self.proven =
                    matches!(happened, Happened::Confirmed { confirmation, .. } if *confirmation == proven);
            }
            What::Effect(Effect::Orchestrator(wanted)) => match wanted {
                Wanted::Report(Report::Convicted { node, .. }) => {
                    self.convicted.insert(*node);
                }
                Wanted::Report(Report::Narrowed { node, .. }) if !self.asked.contains(node) => {
                    return Err(format!("{} answered though it was not asked", node.short()));
                }
                Wanted::Send { to, message: Message::Explain(_) } => return self.ask(*to),
                Wanted::Send { to, message } if self.asked.contains(to) => {
                    let belongs = matches!(
                        message,
                        Message::Show { .. }
                            | Message::Grant(_)
                            | Message::Refused(_)
                            | Message::Finish { .. }
                    );
                    if !belongs {
                        return Err(format!("{} is a convict, and is told: {message}", to.short()));
                    }
                }
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, _end: &End<'_>) -> Result<(), String> {
        Ok(())
    }
}
