//! Swarms whose processes the trial starts itself: what they compute, and what they survive.
#![allow(clippy::unwrap_used)] // a trial that cannot go on has failed

mod crashes;
mod dashboard;
mod devices;
#[cfg(target_os = "linux")]
mod disk;
mod harness;
mod owner;
mod reissue;
mod replicas;
mod routes;
mod store;
#[path = "../support/mod.rs"]
mod support;
