//! The orchestrator's side: many peers, one queue, and a relay between them.

use crate::connection::{Connection, Received, close};
use crate::endpoint::Callers;
use crate::link::Link;
use crate::relay::{Relay, RelayStatistics};
use crate::{Config, Endpoint, Statistics, TransportError};
use spec::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{Mutex, OwnedSemaphorePermit, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use wire::{Frame, Key};

/// Events that may wait for the caller; beyond them the peers wait.
const EVENTS_MAX: usize = 1024;

/// What happens on a hub.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // events are moved, not stored by the thousand
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
    /// Its connection ended. Where it connected anew, this comes before its `Joined`.
    Lost {
        /// Whose.
        peer: NodeId,
        /// Why.
        why: TransportError,
    },
}

/// An event, and the budget that its frame holds while it waits.
type Held = (HubEvent, Option<OwnedSemaphorePermit>);

/// Keeps the live connections by key, gathers what they say, and forwards frames to other nodes unread.
pub struct Hub {
    relay: Arc<Relay>,
    events: Mutex<mpsc::Receiver<Held>>,
    doorkeeper: JoinHandle<()>,
    endpoint: Arc<Endpoint>,
    config: Config,
}

impl Hub {
    /// Listens on `addr` (port 0 = any free one).
    ///
    /// # Errors
    /// [`TransportError::Bind`] when the address is taken or not this machine's.
    pub fn listen(addr: SocketAddr, key: &Key, config: Config) -> Result<Self, TransportError> {
        let relay = Arc::new(Relay::default());
        let endpoint =
            Arc::new(Endpoint::listen_with(addr, key, config.clone(), Callers::All(Some(relay.clone())))?);
        let (queue, events) = mpsc::channel(EVENTS_MAX);
        let door = welcome(endpoint.clone(), relay.clone(), queue);
        let doorkeeper = endpoint.reactor().handle.spawn(door);
        Ok(Self { relay, events: Mutex::new(events), doorkeeper, endpoint, config })
    }

    /// Where the hub listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.endpoint.local_addr()
    }

    /// What happens next; `None` once the hub is shut down and all was told. The queue is bounded: peers
    /// wait while nobody asks. Cancel-safe.
    pub async fn next(&self) -> Option<HubEvent> {
        self.events.lock().await.recv().await.map(|(event, _)| event)
    }

    /// Sends to `frame.to`. A message without a body never waits longer than `Config::stall_timeout`: a node
    /// that takes none for so long is cut off. A payload waits as in [`Connection::send`].
    ///
    /// # Errors
    /// When that node is not connected or cut off, or the frame is beyond its bounds.
    pub async fn send(&self, frame: Frame) -> Result<(), TransportError> {
        let link = self.relay.get(frame.to).ok_or(TransportError::NotConnected { to: frame.to })?;
        link.send_or_end(frame).await
    }

    /// Closes the connection of `peer`, if there is one, once what was sent to it has arrived.
    pub async fn close(&self, peer: NodeId, why: &str) {
        if let Some(link) = self.relay.get(peer) {
            let _ = self.endpoint.reactor().handle.spawn(close(link, why.to_owned())).await;
        }
    }

    /// Passes on nothing more that comes over the connection of `peer`, for as long as that lasts. What it says to the hub is still
    /// heard.
    pub fn confine(&self, peer: NodeId) {
        if let Some(link) = self.relay.get(peer) {
            link.confined.store(true, Ordering::Relaxed);
        }
    }

    /// Closes every connection once what was sent to it has arrived, then the socket.
    pub async fn shut_down(&self, why: &str) {
        self.doorkeeper.abort();
        let (relay, quic, why) =
            (self.relay.clone(), self.endpoint.reactor().endpoint.clone(), why.to_owned());
        let close_timeout = self.config.close_timeout;
        let shutting = async move {
            quic.set_server_config(None);
            let mut closings = JoinSet::new();
            for link in relay.all() {
                closings.spawn(close(link, why.clone()));
            }
            while closings.join_next().await.is_some() {}
            quic.close(quinn::VarInt::from_u32(0), why.as_bytes());
            let _ = timeout(close_timeout, quic.wait_idle()).await;
        };
        let _ = self.endpoint.reactor().handle.spawn(shutting).await;
    }

    /// The nodes connected now, in key order.
    pub fn peers(&self) -> Vec<NodeId> {
        self.relay.all().iter().map(|link| link.peer).collect()
    }

    /// Where the connection of `peer` comes from.
    pub fn address_of(&self, peer: NodeId) -> Option<SocketAddr> {
        self.relay.get(peer).map(|link| link.quic.remote_address())
    }

    /// What the connection of `peer` carried.
    pub fn statistics(&self, peer: NodeId) -> Option<Statistics> {
        self.relay.get(peer).map(|link| link.statistics())
    }

    /// What the relay did.
    pub fn relay_statistics(&self) -> RelayStatistics {
        self.relay.statistics()
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.doorkeeper.abort();
        for link in self.relay.all() {
            let (peer, why) = (link.peer, "the hub was dropped".into());
            link.end(TransportError::Closed { peer, why });
        }
    }
}

/// Takes connections in and starts a pump for each.
async fn welcome(endpoint: Arc<Endpoint>, relay: Arc<Relay>, queue: mpsc::Sender<Held>) {
    let mut pumps: BTreeMap<NodeId, JoinHandle<()>> = BTreeMap::new();
    while let Some(connection) = endpoint.accept().await {
        let peer = connection.peer();
        if let Some(older) = relay.insert(connection.link().clone()) {
            older.end(TransportError::Replaced { peer });
        }
        let pump = pump(connection, relay.clone(), queue.clone(), pumps.remove(&peer));
        pumps.retain(|_, pump| !pump.is_finished());
        pumps.insert(peer, tokio::spawn(pump));
    }
}

/// Carries what one connection says to the queue, once the older connection of the same key was told off.
async fn pump(
    connection: Connection,
    relay: Arc<Relay>,
    queue: mpsc::Sender<Held>,
    older: Option<JoinHandle<()>>,
) {
    if let Some(older) = older {
        let _ = older.await;
    }
    let peer = connection.peer();
    let mut event = (HubEvent::Joined(peer), None);
    // A full queue makes this peer wait; a closed one means that the hub is gone.
    while queue.send(event).await.is_ok() {
        event = match connection.recv_held().await {
            Ok((Received::Frame(frame), held)) => (HubEvent::Frame { from: peer, frame }, held),
            Ok((Received::Suspected, _)) => (HubEvent::Suspected(peer), None),
            Ok((Received::Recovered, _)) => (HubEvent::Recovered(peer), None),
            Err(why) => {
                let link: &Arc<Link> = connection.link();
                relay.remove(link);
                let _ = queue.send((HubEvent::Lost { peer, why }, None)).await;
                return;
            }
        };
    }
}
