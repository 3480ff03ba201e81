//! The direct routes of a node: connections with its neighbours, besides the one with the orchestrator.
//!
//! Two neighbours have one connection. The one with the smaller key calls; the other does where it was not called
//! within [`CALLED_WITHIN`], for it may be reached no other way. Where both calls come up, that of the smaller key
//! stays. A connection that ends, or is silent for as long as a suspect, is told as [`Arrival::RouteLost`] after its
//! place is empty: who then sends again whatever may not have arrived sends it through the relay.

use crate::connection::{Connection, Received};
use crate::link::Kind;
use crate::node::{Arrival, Node};
use crate::{Statistics, TransportError};
use spec::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;
use wire::limits::{ADDRESSES_MAX, NEIGHBOURS_MAX};
use wire::{Carried, Neighbour};

/// How long a caller that is not known is kept waiting.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);
/// How long the one with the larger key waits to be called before it calls itself.
const CALLED_WITHIN: Duration = Duration::from_secs(1);

/// Whom a node talks to without the relay.
#[derive(Default)]
pub(crate) struct Routes {
    known: Mutex<Known>,
    /// Told whenever the neighbours are others.
    changes: watch::Sender<()>,
}

#[derive(Default)]
struct Known {
    /// Whether calls are taken.
    open: bool,
    neighbours: BTreeMap<NodeId, Vec<SocketAddr>>,
    /// Connections that are up, those with former neighbours until what was sent has arrived.
    up: BTreeMap<NodeId, Connection>,
    calling: BTreeSet<NodeId>,
    /// What connections carried that have ended.
    ended: Carried,
    /// What was told of all.
    told: Carried,
}

impl Routes {
    /// Whether calls are taken at all: not before this node was told of neighbours, be it of none.
    pub fn is_open(&self) -> bool {
        self.known().open
    }

    /// Whether this is a neighbour, or becomes one soon: it may hear so, and call, before this node does.
    pub async fn knows(&self, node: NodeId) -> bool {
        let mut changes = self.changes.subscribe();
        let known = async {
            while !self.known().neighbours.contains_key(&node) && changes.changed().await.is_ok() {}
        };
        timeout(KNOWN_WITHIN, known).await.is_ok()
    }

    /// The direct connection to a neighbour, if one is up.
    pub fn get(&self, to: NodeId) -> Option<Connection> {
        let known = self.known();
        known.up.get(&to).filter(|_| known.neighbours.contains_key(&to)).cloned()
    }

    /// What arrived at neighbours since this was asked for the last time.
    pub fn carried(&self) -> Carried {
        let mut known = self.known();
        let live = known.up.values().map(|connection| connection.statistics());
        let all = live.fold(known.ended, |sum, statistics| plus(sum, &statistics));
        let told = std::mem::replace(&mut known.told, all);
        // A connection between its replacement and its end is in neither: nothing is told twice for it.
        known.told.frames = all.frames.max(told.frames);
        known.told.bytes_plain = all.bytes_plain.max(told.bytes_plain);
        known.told.bytes_sent = all.bytes_sent.max(told.bytes_sent);
        Carried {
            frames: all.frames.saturating_sub(told.frames),
            bytes_plain: all.bytes_plain.saturating_sub(told.bytes_plain),
            bytes_sent: all.bytes_sent.saturating_sub(told.bytes_sent),
        }
    }

    /// These are the neighbours now. The answer: connections with those who are none any more, and who is to be called.
    fn replace(&self, neighbours: Vec<Neighbour>) -> (Vec<Connection>, Vec<(NodeId, Vec<SocketAddr>)>) {
        let mut known = self.known();
        known.open = true;
        let bounded = neighbours.into_iter().take(NEIGHBOURS_MAX);
        known.neighbours = bounded
            .map(|Neighbour { node, mut addresses }| {
                addresses.truncate(ADDRESSES_MAX);
                (node, addresses)
            })
            .collect();
        let Known { neighbours, up, calling, .. } = &mut *known;
        let former = up.iter().filter(|(peer, _)| !neighbours.contains_key(*peer));
        let former = former.map(|(_, connection)| connection.clone()).collect();
        let due = neighbours.iter().filter(|(peer, addresses)| {
            !addresses.is_empty() && !up.contains_key(*peer) && calling.insert(**peer)
        });
        let due = due.map(|(peer, addresses)| (*peer, addresses.clone())).collect();
        self.changes.send_replace(());
        (former, due)
    }

    /// Nobody is a neighbour any more, and no call is taken. The answer: all connections.
    fn shut(&self) -> Vec<Connection> {
        let mut known = self.known();
        known.neighbours.clear();
        known.open = false;
        known.up.values().cloned().collect()
    }

    /// Whether a neighbour still waits for a connection.
    fn lacks(&self, peer: NodeId) -> bool {
        let known = self.known();
        known.neighbours.contains_key(&peer) && !known.up.contains_key(&peer)
    }

    fn called(&self, peer: NodeId) {
        self.known().calling.remove(&peer);
    }

    /// Takes in a connection that came up, unless another stays.
    ///
    /// # Errors
    /// Why it does not.
    fn insert(&self, connection: &Connection, own: NodeId, is_caller: bool) -> Result<(), TransportError> {
        let peer = connection.peer();
        let mut known = self.known();
        if !known.neighbours.contains_key(&peer) {
            return Err(TransportError::Closed { peer, why: "not a neighbour of this node".into() });
        }
        let is_from_smaller = is_caller == (own < peer);
        match known.up.get(&peer) {
            Some(_) if !is_from_smaller => {
                return Err(TransportError::Closed { peer, why: "another connection is up".into() });
            }
            Some(older) => older.end(TransportError::Replaced { peer }),
            None => {}
        }
        known.up.insert(peer, connection.clone());
        Ok(())
    }

    /// A connection ended.
    fn retire(&self, connection: &Connection) {
        let mut known = self.known();
        known.ended = plus(known.ended, &connection.statistics());
        let peer = connection.peer();
        if known.up.get(&peer).is_some_and(|up| Arc::ptr_eq(up.link(), connection.link())) {
            known.up.remove(&peer);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // No holder of the lock leaves anything half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn plus(sum: Carried, statistics: &Statistics) -> Carried {
    Carried {
        frames: sum.frames + statistics.frames_sent,
        bytes_plain: sum.bytes_plain + statistics.body_bytes_sent,
        bytes_sent: sum.bytes_sent + statistics.packed_bytes_sent,
    }
}

impl<E: Send + 'static> Node<E> {
    /// Talks to these nodes directly where that can be, and to nobody else; the connections come up, or do not, in the
    /// background.
    pub fn set_neighbours(&self, neighbours: Vec<Neighbour>) {
        let (former, due) = self.routes.replace(neighbours);
        for connection in former {
            tokio::spawn(async move { connection.close("no neighbour any more").await });
        }
        for (peer, addresses) in due {
            tokio::spawn(self.clone().call_neighbour(peer, addresses));
        }
    }

    /// What went to neighbours without the relay, and arrived there, since this was asked for the last time.
    pub fn carried(&self) -> Carried {
        self.routes.carried()
    }

    /// Takes calls until nobody listens to this node any more.
    pub(crate) async fn take_calls(self) {
        loop {
            tokio::select! {
                () = self.events.closed() => return,
                called = self.endpoint.accept() => match called {
                    Some(connection) => self.take_route(connection, false),
                    None => return,
                },
            }
        }
    }

    /// Ends every direct connection, and takes no other.
    pub(crate) fn end_routes(&self) {
        let former = self.routes.shut();
        for connection in former {
            let (peer, why) = (connection.peer(), "this node leaves".into());
            connection.end(TransportError::Closed { peer, why });
        }
    }

    async fn call_neighbour(self, peer: NodeId, addresses: Vec<SocketAddr>) {
        if self.caller.key.id() > peer {
            tokio::time::sleep(CALLED_WITHIN).await;
        }
        for address in addresses {
            if !self.routes.lacks(peer) {
                break;
            }
            let config = self.caller.config.direct();
            match self.endpoint.call((address, peer), &self.caller.key, config, Kind::Direct).await {
                Ok(connection) => {
                    self.take_route(connection, true);
                    break;
                }
                Err(error) => tracing::info!(peer = %peer.short(), "no direct route: {error}"),
            }
        }
        self.routes.called(peer);
    }

    pub(crate) fn take_route(&self, connection: Connection, is_caller: bool) {
        match self.routes.insert(&connection, self.caller.key.id(), is_caller) {
            Ok(()) => {
                tracing::info!(peer = %connection.peer().short(), "a direct route is up");
                tokio::spawn(self.clone().listen_to(connection));
            }
            Err(why) => connection.end(why),
        }
    }

    async fn listen_to(self, connection: Connection) {
        let peer = connection.peer();
        let why = loop {
            match connection.recv().await {
                Ok(Received::Frame(frame)) => match self.arrived(frame) {
                    Arrival::Message(_) => {
                        let why = "it said what is not a neighbour's to say".into();
                        connection.end(TransportError::Misconduct { peer, why });
                    }
                    arrival => _ = self.tell(arrival).await,
                },
                Ok(Received::Suspected | Received::Recovered) => {}
                Err(why) => break why,
            }
        };
        match &why {
            TransportError::Closed { .. } => {
                tracing::info!(peer = %peer.short(), "a direct route is gone: {why}")
            }
            _ => {
                tracing::warn!(peer = %peer.short(), "a direct route is gone, the relay takes its place: {why}")
            }
        }
        self.routes.retire(&connection);
        self.tell(Arrival::RouteLost(peer)).await;
    }
}
