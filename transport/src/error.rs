//! What a conversation can fail of.

use spec::NodeId;
use std::net::SocketAddr;
use wire::WireError;

/// A conversation that could not begin, or ended.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TransportError {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {why}; choose another address or stop the program that holds it")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        why: String,
    },
    /// Another key answered.
    #[error("{addr} proved key {found}, expected {expected}: the invitation is for another node")]
    WrongKey {
        /// Who was called.
        addr: SocketAddr,
        /// The key that was to answer.
        expected: NodeId,
        /// The key that did.
        found: NodeId,
    },
    /// Nobody answered in time.
    #[error("{addr} did not answer within {timeout_ms} ms: is the address right and UDP let through?")]
    Unreachable {
        /// Who was called.
        addr: SocketAddr,
        /// The deadline in milliseconds.
        timeout_ms: u64,
    },
    /// The connection did not come up.
    #[error("{addr} ended the greeting: {why}")]
    Greeting {
        /// Who was called.
        addr: SocketAddr,
        /// What was said.
        why: String,
    },
    /// The peer sent what this version does not read; the connection was closed.
    #[error("closed the connection to {peer}: {source}")]
    Garbage {
        /// Who sent it.
        peer: NodeId,
        /// What was wrong.
        source: WireError,
    },
    /// The peer broke the rules of streams; the connection was closed.
    #[error("closed the connection to {peer}: {why}")]
    Misconduct {
        /// Who did it.
        peer: NodeId,
        /// What was wrong.
        why: String,
    },
    /// A frame of ours cannot be sent.
    #[error("frame to {to} was not sent: {source}")]
    Unsendable {
        /// The receiver.
        to: NodeId,
        /// What is wrong with it.
        source: WireError,
    },
    /// No sign of life for too long.
    #[error("lost {peer}: silent for {silent_ms} ms")]
    Silent {
        /// Who is lost.
        peer: NodeId,
        /// Length of the silence in milliseconds.
        silent_ms: u64,
    },
    /// A newer connection of the same key took this one's place.
    #[error("{peer} connected anew; the older connection was closed")]
    Replaced {
        /// Who connected.
        peer: NodeId,
    },
    /// The connection ended, on either side's wish or by the network.
    #[error("connection to {peer} ended: {why}")]
    Closed {
        /// The other side.
        peer: NodeId,
        /// What was said.
        why: String,
    },
    /// The receiver is not connected here.
    #[error("{to} is not connected: the frame was dropped")]
    NotConnected {
        /// The receiver.
        to: NodeId,
    },
    /// This machine refused something that every conversation needs.
    #[error("cannot start {what}: {why}")]
    System {
        /// Thread, socket or cryptography.
        what: &'static str,
        /// What the system said.
        why: String,
    },
}
