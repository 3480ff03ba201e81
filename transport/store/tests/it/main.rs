//! The store against the embedded server, over real sockets.

// In helpers too, a failed step is a failed test.
#![allow(clippy::unwrap_used)]

mod conformance;
mod durability;
mod faults;
mod fixture;
mod grants;
mod protocol;
mod refusals;
mod seaweedfs;
