//! Calling and being called.

use crate::{Config, Connection, TransportError};
use spec::NodeId;
use std::net::SocketAddr;
use wire::Key;

/// A UDP socket that others may call.
pub struct Endpoint {}

impl Endpoint {
    /// Listens on `addr` (port 0 = any free one; see [`local_addr`](Self::local_addr)).
    ///
    /// # Errors
    /// [`TransportError::Bind`] when the address is taken or not this machine's.
    pub fn listen(_addr: SocketAddr, _key: &Key, _config: Config) -> Result<Self, TransportError> {
        todo!()
    }

    /// Where the socket listens.
    pub fn local_addr(&self) -> SocketAddr {
        todo!()
    }

    /// The next connection that is up: key proven, greeting answered. `None` once the endpoint is closed.
    /// Cancel-safe.
    pub async fn accept(&self) -> Option<Connection> {
        todo!()
    }

    /// Calls `addr` and returns once the connection is up.
    ///
    /// # Errors
    /// [`TransportError::WrongKey`] when another key than `expect` answers; [`TransportError::Unreachable`]
    /// when nobody does within `config.connect_timeout`.
    pub async fn connect(
        _addr: SocketAddr,
        _expect: NodeId,
        _key: &Key,
        _config: Config,
    ) -> Result<Connection, TransportError> {
        todo!()
    }
}
