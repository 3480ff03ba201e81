//! The threads and the socket of one endpoint.

use crate::{Config, TransportError, reset, tls};
use quinn::congestion::CubicConfig;
use quinn::{
    AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use wire::Key;

/// Two: one may check and pack a body while the other keeps the heartbeat.
const THREADS: usize = 2;
/// First congestion window, in bytes: a payload needs fewer round trips to get going.
const WINDOW_INITIAL_BYTES: u64 = 128 << 10;
/// Largest packet between two nodes of one machine, in bytes of UDP's payload: fewer packets for the same bytes. Ten of them are
/// given to the system as one buffer (generic segmentation offload), which takes 64 KiB and refuses more: every bound beyond
/// 6,550 ends at the smallest packets there are. Other ways keep what passes everywhere.
pub(crate) const LOOPBACK_PACKET_BYTES: u16 = 6_500;
/// Packets that the receiver may take in before it acknowledges them; quinn's own is every other one. Fewer acknowledgements are fewer
/// calls of the system on both sides. What comes out of order, and the last of a burst, is acknowledged as soon as before.
const ACK_EVERY_PACKETS: u32 = 10;
/// How long farewells may take to leave after the last handle is gone.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// A runtime that does nothing but talk, so that no compute delays it, and the QUIC endpoint on it.
#[derive(Debug)]
pub(crate) struct Reactor {
    runtime: Option<Runtime>,
    pub(crate) handle: Handle,
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) local_addr: SocketAddr,
    /// How callers from this machine are answered.
    pub(crate) nearby: Option<Arc<ServerConfig>>,
}

impl Reactor {
    /// Binds `addr`; takes calls where there is a key to answer with.
    pub(crate) fn start(
        addr: SocketAddr,
        answer: Option<&Key>,
        config: &Config,
    ) -> Result<Self, TransportError> {
        let bind_error = |error: std::io::Error| TransportError::Bind { addr, why: error.to_string() };
        let system_error =
            |what| move |error: std::io::Error| TransportError::System { what, why: error.to_string() };
        let (mut endpoint_config, server) = match answer {
            Some(key) => {
                let random_error = |error: getrandom::Error| TransportError::System {
                    what: "random bytes for an endpoint",
                    why: error.to_string(),
                };
                let mut server = ServerConfig::with_crypto(Arc::new(tls::server(key)?));
                server.transport_config(Arc::new(transport_config(config, 1, None)));
                (reset::endpoint_config(key).map_err(random_error)?, Some(server))
            }
            None => (EndpointConfig::default(), None),
        };
        // What is taken at all; what is sent follows from the way.
        if let Err(error) = endpoint_config.max_udp_payload_size(LOOPBACK_PACKET_BYTES) {
            tracing::debug!(%error, "packets stay as small as everywhere");
        }
        let nearby = server.clone().map(|mut server| {
            server.transport_config(Arc::new(transport_config(config, 1, Some(Ipv4Addr::LOCALHOST.into()))));
            Arc::new(server)
        });
        let socket = bind(addr, config).map_err(bind_error)?;
        let local_addr = socket.local_addr().map_err(bind_error)?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("quic")
            .enable_all()
            .build()
            .map_err(system_error("the threads of an endpoint"))?;
        let handle = runtime.handle().clone();
        let guard = handle.enter();
        let endpoint = quinn::Endpoint::new(endpoint_config, server, socket, Arc::new(TokioRuntime))
            .map_err(system_error("an endpoint"))?;
        drop(guard);
        Ok(Self { runtime: Some(runtime), handle, endpoint, local_addr, nearby })
    }
}

impl Drop for Reactor {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        let endpoint = self.endpoint.clone();
        endpoint.close(VarInt::from_u32(0), b"the endpoint was dropped");
        // A runtime may not be dropped on a thread of another one, and peers should hear that we are gone.
        let farewell = move || {
            runtime.block_on(async {
                let _ = tokio::time::timeout(FAREWELL_TIMEOUT, endpoint.wait_idle()).await;
            });
            runtime.shutdown_background();
        };
        if let Err(error) = std::thread::Builder::new().name("farewell".into()).spawn(farewell) {
            tracing::warn!(%error, "no thread to say farewell on: peers will notice by silence");
        }
    }
}

/// Streams, windows, controller and packets of a connection with `peer`, if that is known. The caller of a connection opens one
/// bidirectional stream; the side that is called opens none.
pub(crate) fn transport_config(config: &Config, bidirectional: u32, peer: Option<IpAddr>) -> TransportConfig {
    // One window for every stream that may be open at once: the bytes of streams that wait for the caller
    // then never fill the connection's window, and those that are being read go on.
    let window = u64::from(config.stream_window_bytes) * (u64::from(config.payload_streams) + 1);
    let mut cubic = CubicConfig::default();
    cubic.initial_window(WINDOW_INITIAL_BYTES);
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY_PACKETS - 1));
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(bidirectional))
        .max_concurrent_uni_streams(VarInt::from_u32(config.payload_streams))
        .stream_receive_window(VarInt::from_u32(config.stream_window_bytes))
        .receive_window(VarInt::from_u64(window).unwrap_or(VarInt::MAX))
        .send_window(window)
        .datagram_receive_buffer_size(Some(1 << 10))
        .congestion_controller_factory(Arc::new(cubic))
        .ack_frequency_config(Some(acknowledgements))
        // Ours is the earlier deadline, with the better words; this one only sweeps up.
        .max_idle_timeout(IdleTimeout::try_from(config.lost_after * 2).ok());
    if peer.is_some_and(|peer| peer.to_canonical().is_loopback()) {
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(LOOPBACK_PACKET_BYTES);
        transport.mtu_discovery_config(Some(discovery));
    }
    transport
}

fn bind(addr: SocketAddr, config: &Config) -> std::io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    // The system may grant less; that costs speed, not correctness.
    for set in [
        socket.set_recv_buffer_size(config.socket_buffer_bytes),
        socket.set_send_buffer_size(config.socket_buffer_bytes),
    ] {
        if let Err(error) = set {
            tracing::debug!(%error, "the system refused a socket buffer of {} bytes", config.socket_buffer_bytes);
        }
    }
    socket.bind(&addr.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
