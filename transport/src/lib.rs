//! The conversation: bytes and peers, no tensor.
//!
//! Nodes speak QUIC (TLS 1.3 alone, ALPN `iota/1`, no 0-RTT) and prove on both sides the ed25519 key that
//! is their name, as RFC 7250 raw public keys: there is no certificate anywhere. A connection counts as up
//! only after a greeting and its answer, because a TLS 1.3 client learns of a refusal on first use.
//!
//! ```text
//! control   one bidirectional stream: messages without a body, in order
//! payload   one unidirectional stream per frame, gradients before activations
//! liveness  datagrams every 250 ms: neither flow control nor a full queue delays them
//! ```
//!
//! [`Endpoint`] and [`Connection`] are one conversation; [`Hub`] is the orchestrator's side of many and
//! relays what is not its own, unread; a [`node::Node`] talks to its neighbours directly where that can be; [`drive`](drive::drive) runs any `wire::Machine` on a queue of
//! events. Every endpoint owns a small runtime of its own, so that compute on the caller's threads does
//! not delay a heartbeat. Everything a peer sends is bounded before it is read: see [`Config`].
//!
//! What is deliberately absent: admission (a matter of messages), tensors, the lossy codec, retries of a
//! message (a lost one is the core's matter).

mod config;
mod connection;
mod direct;
mod endpoint;
mod error;
mod frame;
mod greeting;
mod hub;
mod inbound;
mod link;
mod liveness;
mod reactor;
mod relay;
mod reset;
mod tls;

pub mod drive;
pub mod identity;
pub mod invitation;
pub mod node;
pub mod pack;

pub use config::Config;
pub use connection::{Connection, Received, Statistics};
pub use endpoint::Endpoint;
pub use error::TransportError;
pub use hub::{Hub, HubEvent};
pub use invitation::Invitation;
pub use relay::RelayStatistics;

#[cfg(test)]
mod tests;
