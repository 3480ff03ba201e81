//! The miner's core against an orchestrator, neighbours and an engine that are puppets of the test.

mod conversation;
mod refusals;
mod support;
