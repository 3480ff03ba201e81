//! One conversation with one peer.

use crate::TransportError;
use spec::NodeId;
use wire::Frame;

/// A connection that is up. Clones share it; it closes when the last one is dropped.
#[derive(Clone)]
pub struct Connection {}

/// What comes in.
#[derive(Debug, Clone, PartialEq)]
pub enum Received {
    /// A frame, its body unpacked and its checksum verified.
    Frame(Frame),
    /// The peer has been silent for `Config::suspect_after`.
    Suspected,
    /// It is heard again.
    Recovered,
}

/// What a connection carried since it came up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames sent.
    pub frames_sent: u64,
    /// Frames received.
    pub frames_received: u64,
    /// Bytes of payload bodies sent, before packing.
    pub body_bytes_sent: u64,
    /// Bytes of payload bodies sent, as they travelled.
    pub packed_bytes_sent: u64,
    /// Bytes of payload bodies received, unpacked.
    pub body_bytes_received: u64,
    /// Bytes of payload bodies received, as they travelled.
    pub packed_bytes_received: u64,
    /// Payload frames that a relay passed on and that were damaged or cut off, hence dropped.
    pub frames_damaged: u64,
}

impl Connection {
    /// The key the peer proved.
    pub fn peer(&self) -> NodeId {
        todo!()
    }

    /// Accepts a frame for sending: at once while fewer than `Config::send_budget_bytes` of payload (or
    /// `Config::control_queue` messages) are on their way, else as soon as room is free. Messages without a
    /// body arrive in the order of the calls; payload frames in any order, gradients first.
    ///
    /// # Errors
    /// When the frame is beyond its bounds, or the connection ended.
    pub async fn send(&self, _frame: Frame) -> Result<(), TransportError> {
        todo!()
    }

    /// What comes in next, control messages before payloads. Cancel-safe.
    ///
    /// # Errors
    /// Once the connection ended and all that came before was taken: why it ended.
    pub async fn recv(&self) -> Result<Received, TransportError> {
        todo!()
    }

    /// What it carried.
    pub fn statistics(&self) -> Statistics {
        todo!()
    }

    /// Waits (at most `Config::close_timeout`) until everything sent has arrived, then closes with `why`.
    pub async fn close(&self, _why: &str) {
        todo!()
    }
}
