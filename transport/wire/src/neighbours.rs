//! Direct routes: where a miner can be reached, whom it may reach, and what went that way.

use serde::{Deserialize, Serialize};
use spec::NodeId;
use std::net::{IpAddr, SocketAddr};

/// A miner that another may talk to without the orchestrator's relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Who.
    pub node: NodeId,
    /// Where it may be reached, the likeliest first; none where it can only call. Hints: who answers proves its key.
    pub addresses: Vec<SocketAddr>,
}

/// Blocks that a miner sent to others without the relay, and that arrived there, since it last said so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried {
    /// How many.
    pub frames: u64,
    /// Their bytes before lossless packing.
    pub bytes_plain: u64,
    /// Their bytes as they travelled.
    pub bytes_sent: u64,
}

/// What a miner says for "where you see me": the address that its connection to the orchestrator comes from.
pub const AS_SEEN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// Whether somebody could be called there.
pub fn is_callable(address: &SocketAddr) -> bool {
    address.port() != 0 && !address.ip().is_unspecified() && !address.ip().is_multicast()
}
