//! The miner's core against an orchestrator, neighbours and an engine that are puppets of the test.

#![allow(clippy::unwrap_used)] // a helper that meets what it does not expect fails its test

mod conversation;
mod explain;
mod neighbours;
mod pipeline;
mod refusals;
mod support;
