//! Calling and being called.

use crate::link::Link;
use crate::reactor::{Reactor, transport_config};
use crate::relay::Relay;
use crate::{Config, Connection, TransportError, greeting, tls};
use quinn::{ClientConfig, ConnectionError, Incoming, VarInt};
use spec::NodeId;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Weak};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use wire::Key;

/// Connections that are up and wait to be accepted.
const ACCEPTED_MAX: usize = 64;
/// TLS wants a name; keys make it meaningless.
const SERVER_NAME: &str = "iota";

/// A UDP socket that others may call. Dropped, it takes no further calls; connections that are up stay.
pub struct Endpoint {
    accepted: Mutex<mpsc::Receiver<Connection>>,
    doorkeeper: JoinHandle<()>,
    reactor: Arc<Reactor>,
}

impl Endpoint {
    /// Listens on `addr` (port 0 = any free one; see [`local_addr`](Self::local_addr)).
    ///
    /// # Errors
    /// [`TransportError::Bind`] when the address is taken or not this machine's.
    pub fn listen(addr: SocketAddr, key: &Key, config: Config) -> Result<Self, TransportError> {
        Self::listen_with(addr, key, config, None)
    }

    pub(crate) fn listen_with(
        addr: SocketAddr,
        key: &Key,
        config: Config,
        relay: Option<Arc<Relay>>,
    ) -> Result<Self, TransportError> {
        let reactor = Arc::new(Reactor::start(addr, Some(key), &config)?);
        let (queue, accepted) = mpsc::channel(ACCEPTED_MAX);
        let door = Door { own: key.id(), config, relay, queue, reactor: Arc::downgrade(&reactor) };
        let doorkeeper = reactor.handle.spawn(door.keep(reactor.endpoint.clone()));
        Ok(Self { accepted: Mutex::new(accepted), doorkeeper, reactor })
    }

    /// Where the socket listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.reactor.local_addr
    }

    /// The next connection that is up: key proven, greeting answered. `None` once the endpoint is closed.
    /// Cancel-safe.
    pub async fn accept(&self) -> Option<Connection> {
        self.accepted.lock().await.recv().await
    }

    /// Calls `addr` and returns once the connection is up.
    ///
    /// # Errors
    /// [`TransportError::WrongKey`] when another key than `expect` answers; [`TransportError::Unreachable`]
    /// when nobody does within `config.connect_timeout`.
    pub async fn connect(
        addr: SocketAddr,
        expect: NodeId,
        key: &Key,
        config: Config,
    ) -> Result<Connection, TransportError> {
        let any: IpAddr =
            if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let reactor = Arc::new(Reactor::start(SocketAddr::new(any, 0), None, &config)?);
        let (tls, found) = tls::client(key, expect)?;
        let mut client = ClientConfig::new(Arc::new(tls));
        client.transport_config(Arc::new(transport_config(&config, 0)));
        let timeout_ms = u64::try_from(config.connect_timeout.as_millis()).unwrap_or(u64::MAX);
        let unreachable = TransportError::Unreachable { addr, timeout_ms };
        let own = key.id();
        let (limit, handle) = (config.connect_timeout, reactor.handle.clone());
        // On the reactor's threads: the caller's runtime may have neither timers nor sockets.
        let calling = handle.spawn(timeout(limit, async move {
            let in_words = |why: String| TransportError::Greeting { addr, why };
            let quic = reactor
                .endpoint
                .connect_with(client, addr, SERVER_NAME)
                .map_err(|error| in_words(error.to_string()))?
                .await
                .map_err(|error| match (error, found.get()) {
                    (_, Some(&found)) if found != expect => {
                        TransportError::WrongKey { addr, expected: expect, found }
                    }
                    (ConnectionError::TimedOut, _) => TransportError::Unreachable { addr, timeout_ms },
                    (error, _) => in_words(error.to_string()),
                })?;
            let streams = greeting::call(&quic).await.map_err(in_words)?;
            let link = Link::new(quic, (own, expect), true, reactor.handle.clone(), config);
            Ok(Connection::start(reactor, None, link, streams))
        }));
        match calling.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(unreachable),
            Err(error) => Err(TransportError::Greeting { addr, why: error.to_string() }),
        }
    }

    pub(crate) fn reactor(&self) -> &Arc<Reactor> {
        &self.reactor
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.reactor.endpoint.set_server_config(None);
        self.doorkeeper.abort();
    }
}

/// Lets callers in.
#[derive(Clone)]
struct Door {
    own: NodeId,
    config: Config,
    relay: Option<Arc<Relay>>,
    queue: mpsc::Sender<Connection>,
    /// Weak, or the reactor's own task would keep it alive.
    reactor: Weak<Reactor>,
}

impl Door {
    async fn keep(self, endpoint: quinn::Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            if endpoint.open_connections() >= self.config.connections_max {
                incoming.refuse();
                continue;
            }
            tokio::spawn(self.clone().let_in(incoming));
        }
    }

    async fn let_in(self, incoming: Incoming) {
        let from = incoming.remote_address();
        match timeout(self.config.connect_timeout, self.greet(incoming)).await {
            Ok(Ok(Some(connection))) => drop(self.queue.send(connection).await),
            Ok(Ok(None)) => {}
            Ok(Err(why)) => tracing::info!(%from, "a call did not come up: {why}"),
            Err(_) => tracing::info!(%from, "a call did not come up in time"),
        }
    }

    async fn greet(&self, incoming: Incoming) -> Result<Option<Connection>, String> {
        let quic = incoming.accept().map_err(in_words)?.await.map_err(in_words)?;
        let Some(peer) = tls::proven_key(&quic) else {
            quic.close(VarInt::from_u32(1), b"no ed25519 key was proven");
            return Err("no ed25519 key was proven".into());
        };
        let streams = greeting::answer(&quic)
            .await
            .inspect_err(|why| quic.close(VarInt::from_u32(1), why.as_bytes()))?;
        let Some(reactor) = self.reactor.upgrade() else { return Ok(None) };
        let link = Link::new(quic, (self.own, peer), false, reactor.handle.clone(), self.config.clone());
        Ok(Some(Connection::start(reactor, self.relay.clone(), link, streams)))
    }
}

fn in_words(error: impl ToString) -> String {
    error.to_string()
}
