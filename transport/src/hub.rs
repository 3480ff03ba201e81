//! The orchestrator's side: many peers, one queue, and a relay between them.

use crate::{Config, Statistics, TransportError};
use spec::NodeId;
use std::net::SocketAddr;
use wire::{Frame, Key};

/// What happens on a hub.
#[derive(Debug, Clone, PartialEq)]
pub enum HubEvent {
    /// A node connected and proved its key. It is admitted by messages only.
    Joined(NodeId),
    /// A node sent a frame to this one.
    Frame {
        /// Who sent it.
        from: NodeId,
        /// What it sent.
        frame: Frame,
    },
    /// A node has been silent for `Config::suspect_after`.
    Suspected(NodeId),
    /// It is heard again.
    Recovered(NodeId),
    /// Its connection ended.
    Lost {
        /// Whose.
        peer: NodeId,
        /// Why.
        why: TransportError,
    },
}

/// What the relay did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RelayStatistics {
    /// Frames passed on whole.
    pub frames_forwarded: u64,
    /// Bytes of heads and bodies in them.
    pub bytes_forwarded: u64,
    /// Frames dropped because the receiver is not connected.
    pub frames_unroutable: u64,
    /// Frames dropped because sender or receiver failed midway or took too long.
    pub frames_cut: u64,
}

/// Keeps the live connections by key, gathers what they say, and forwards frames to other nodes unread.
pub struct Hub {}

impl Hub {
    /// Listens on `addr` (port 0 = any free one).
    ///
    /// # Errors
    /// [`TransportError::Bind`] when the address is taken or not this machine's.
    pub fn listen(_addr: SocketAddr, _key: &Key, _config: Config) -> Result<Self, TransportError> {
        todo!()
    }

    /// Where the hub listens.
    pub fn local_addr(&self) -> SocketAddr {
        todo!()
    }

    /// What happens next. The queue is bounded: peers wait while nobody asks. Cancel-safe.
    pub async fn next(&self) -> HubEvent {
        todo!()
    }

    /// Sends to `frame.to`, under the back-pressure of [`Connection::send`](crate::Connection::send).
    ///
    /// # Errors
    /// When that node is not connected, or the frame is beyond its bounds.
    pub async fn send(&self, _frame: Frame) -> Result<(), TransportError> {
        todo!()
    }

    /// Closes the connection of `peer`, if there is one, once what was sent to it has arrived.
    pub async fn close(&self, _peer: NodeId, _why: &str) {
        todo!()
    }

    /// Closes every connection, then the socket.
    pub async fn shut_down(&self, _why: &str) {
        todo!()
    }

    /// The nodes connected now, in key order.
    pub fn peers(&self) -> Vec<NodeId> {
        todo!()
    }

    /// What the connection of `peer` carried.
    pub fn statistics(&self, _peer: NodeId) -> Option<Statistics> {
        todo!()
    }

    /// What the relay did.
    pub fn relay_statistics(&self) -> RelayStatistics {
        todo!()
    }
}
