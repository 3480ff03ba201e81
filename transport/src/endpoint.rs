//! Calling and being called.

use crate::direct::Routes;
use crate::link::{Kind, Link};
use crate::reactor::{Reactor, transport_config};
use crate::relay::Relay;
use crate::{Config, Connection, TransportError, greeting, tls};
use quinn::{ClientConfig, Connecting, ConnectionError, Incoming, VarInt};
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
        Self::listen_with(addr, key, config, Callers::All(None))
    }

    pub(crate) fn listen_with(
        addr: SocketAddr,
        key: &Key,
        config: Config,
        callers: Callers,
    ) -> Result<Self, TransportError> {
        let reactor = Arc::new(Reactor::start(addr, Some(key), &config)?);
        let (queue, accepted) = mpsc::channel(ACCEPTED_MAX);
        let door = Door { own: key.id(), config, callers, queue, reactor: Arc::downgrade(&reactor) };
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

    /// Calls the hub at `addr`, from a socket of its own, and returns once the connection is up.
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
        let reactor = Arc::new(Reactor::start(any_port_like(addr), None, &config)?);
        dial(reactor, (addr, expect), key, config, Kind::ToHub).await
    }

    /// As [`connect`](Self::connect), from the socket that listens: who is called this way sees where to call back.
    pub(crate) async fn call(
        &self,
        to: (SocketAddr, NodeId),
        key: &Key,
        config: Config,
        kind: Kind,
    ) -> Result<Connection, TransportError> {
        dial(self.reactor.clone(), to, key, config, kind).await
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

/// Any free port of this machine from which `addr` can be called.
pub(crate) fn any_port_like(addr: SocketAddr) -> SocketAddr {
    let any: IpAddr =
        if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(any, 0)
}

async fn dial(
    reactor: Arc<Reactor>,
    (addr, expect): (SocketAddr, NodeId),
    key: &Key,
    config: Config,
    kind: Kind,
) -> Result<Connection, TransportError> {
    let (tls, found) = tls::client(key, expect)?;
    let mut client = ClientConfig::new(Arc::new(tls));
    client.transport_config(Arc::new(transport_config(&config, 0, Some(addr.ip()))));
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
        let streams = greeting::call(&quic)
            .await
            .map_err(|why| in_words(quic.close_reason().map_or(why, |reason| reason.to_string())))?;
        let link = Link::new(quic, (own, expect), kind, reactor.handle.clone(), config);
        Ok(Connection::start(reactor, None, link, streams))
    }));
    match calling.await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(unreachable),
        Err(error) => Err(TransportError::Greeting { addr, why: error.to_string() }),
    }
}

/// Who may call an endpoint.
#[derive(Clone)]
pub(crate) enum Callers {
    /// Anybody; frames for others go to the relay, if there is one.
    All(Option<Arc<Relay>>),
    /// The neighbours of these routes, as they are when the call comes.
    Neighbours(Arc<Routes>),
}

/// Lets callers in.
#[derive(Clone)]
struct Door {
    own: NodeId,
    config: Config,
    callers: Callers,
    queue: mpsc::Sender<Connection>,
    /// Weak, or the reactor's own task would keep it alive.
    reactor: Weak<Reactor>,
}

impl Door {
    async fn keep(self, endpoint: quinn::Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            let listed = match &self.callers {
                Callers::All(_) => None,
                Callers::Neighbours(routes) => Some(routes.is_open()),
            };
            match listed {
                // Nobody is to know that there is somebody here.
                Some(false) => incoming.ignore(),
                _ if endpoint.open_connections() >= self.config.connections_max => incoming.refuse(),
                // Who is where it says comes again, and only then costs more than a packet.
                Some(true) if !incoming.remote_address_validated() => drop(incoming.retry()),
                // From here on it counts.
                _ => match self.answer(incoming) {
                    Ok(connecting) => drop(tokio::spawn(self.clone().let_in(connecting))),
                    Err(why) => tracing::info!("a call did not come up: {why}"),
                },
            }
        }
    }

    fn answer(&self, incoming: Incoming) -> Result<Connecting, ConnectionError> {
        let nearby = self.reactor.upgrade().and_then(|reactor| reactor.nearby.clone());
        match nearby.filter(|_| incoming.remote_address().ip().to_canonical().is_loopback()) {
            Some(nearby) => incoming.accept_with(nearby),
            None => incoming.accept(),
        }
    }

    async fn let_in(self, connecting: Connecting) {
        let from = connecting.remote_address();
        match timeout(self.config.connect_timeout, self.greet(connecting)).await {
            Ok(Ok(Some(connection))) => drop(self.queue.send(connection).await),
            Ok(Ok(None)) => {}
            Ok(Err(why)) => tracing::info!(%from, "a call did not come up: {why}"),
            Err(_) => tracing::info!(%from, "a call did not come up in time"),
        }
    }

    async fn greet(&self, connecting: Connecting) -> Result<Option<Connection>, String> {
        let quic = connecting.await.map_err(in_words)?;
        let Some(peer) = tls::proven_key(&quic) else {
            quic.close(VarInt::from_u32(1), b"no ed25519 key was proven");
            return Err("no ed25519 key was proven".into());
        };
        let (relay, kind) = match &self.callers {
            Callers::All(relay) => (relay.clone(), Kind::ToNode),
            Callers::Neighbours(routes) if routes.knows(peer).await => (None, Kind::Direct),
            Callers::Neighbours(_) => {
                quic.close(VarInt::from_u32(1), b"not a neighbour of this node");
                return Err(format!("{} is no neighbour", peer.short()));
            }
        };
        let streams = greeting::answer(&quic)
            .await
            .inspect_err(|why| quic.close(VarInt::from_u32(1), why.as_bytes()))?;
        let Some(reactor) = self.reactor.upgrade() else { return Ok(None) };
        let link = Link::new(quic, (self.own, peer), kind, reactor.handle.clone(), self.config.clone());
        Ok(Some(Connection::start(reactor, relay, link, streams)))
    }
}

fn in_words(error: impl ToString) -> String {
    error.to_string()
}
