//! The orchestrator's core against puppets: a golden run, the journal's law, snapshots, refusals, deadlines.

#![allow(clippy::unwrap_used)] // a helper that meets what it does not expect fails its test

mod accusations;
mod conversation;
mod deadlines;
mod handover;
mod lingering;
mod moves;
mod neighbours;
mod owner;
mod questions;
mod refusals;
mod reissue;
mod sentence;
mod snapshots;
mod support;
