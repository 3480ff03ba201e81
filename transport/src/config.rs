//! Bounds and deadlines of an endpoint.

use std::time::Duration;

/// How long a call to a neighbour may take.
const DIRECT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Connections of a node, those among them that are still judged.
const DIRECT_CONNECTIONS_MAX: usize = 2 * wire::limits::NEIGHBOURS_MAX;

/// Bounds and deadlines. `Config::default()` fits both a swarm on one machine and volunteers at home.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a connection may take to come up, greeting included. Default 10 s.
    pub connect_timeout: Duration,
    /// How often a sign of life is sent. Default 250 ms.
    pub heartbeat_interval: Duration,
    /// Silence after which a peer is suspected. Default 900 ms.
    pub suspect_after: Duration,
    /// Silence after which a peer is lost and its connection closed. Default 10 s.
    pub lost_after: Duration,
    /// How long one frame may take from its first byte to its last, and how long a relayed frame may wait
    /// for a busy receiver. Default 60 s.
    pub frame_timeout: Duration,
    /// How long a graceful close waits for what was sent to arrive. Default 2 s.
    pub close_timeout: Duration,
    /// How long a hub waits for a node whose queue of messages is full before it closes the connection: one
    /// node that does not read is not to hold up the rest. Default 1 s.
    pub stall_timeout: Duration,
    /// Payload bytes accepted for sending and not yet delivered, per connection; a longer frame goes
    /// alone. Default 64 MiB.
    pub send_budget_bytes: u32,
    /// Payload bytes received and not yet taken by the caller, per connection; a longer frame comes alone.
    /// Default 64 MiB.
    pub receive_budget_bytes: u32,
    /// Control messages that may wait in either direction, per connection. Default 256.
    pub control_queue: usize,
    /// Payload streams that a peer may have open at once. Default 8.
    pub payload_streams: u32,
    /// Flow-control window of one stream. The connection's window is that of all streams together, so that
    /// a stream which waits for the caller never starves another. Default 4 MiB.
    pub stream_window_bytes: u32,
    /// Send and receive buffer asked of the UDP socket. Default 4 MiB: less loses packets on loopback.
    pub socket_buffer_bytes: usize,
    /// Connections that may be up at once; further ones are refused. Default 1024.
    pub connections_max: usize,
    /// Whether payload bodies are packed (losslessly, where it helps). Default true.
    pub packing: bool,
}

impl Config {
    /// Of a connection between two nodes: losing it costs a way round and nothing else, so nobody waits for it.
    pub(crate) fn direct(&self) -> Self {
        Self {
            connect_timeout: DIRECT_CONNECT_TIMEOUT,
            lost_after: self.suspect_after,
            connections_max: DIRECT_CONNECTIONS_MAX,
            ..self.clone()
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            heartbeat_interval: Duration::from_millis(250),
            suspect_after: Duration::from_millis(900),
            lost_after: Duration::from_secs(10),
            frame_timeout: Duration::from_secs(60),
            close_timeout: Duration::from_secs(2),
            stall_timeout: Duration::from_secs(1),
            send_budget_bytes: 64 << 20,
            receive_budget_bytes: 64 << 20,
            control_queue: 256,
            payload_streams: 8,
            stream_window_bytes: 4 << 20,
            socket_buffer_bytes: 4 << 20,
            connections_max: 1024,
            packing: true,
        }
    }
}
