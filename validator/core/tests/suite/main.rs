//! The validator's core against an orchestrator and an engine that are puppets of the test.

mod conversation;
mod findings;
mod support;
