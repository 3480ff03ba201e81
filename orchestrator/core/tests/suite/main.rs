//! The orchestrator's core against puppets: a golden run, the journal's law, refusals, deadlines.

mod conversation;
mod deadlines;
mod refusals;
mod support;
