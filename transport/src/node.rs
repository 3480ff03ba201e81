//! A node's side of the swarm: its connection to the orchestrator, its direct routes, and its table of objects.
//!
//! One socket calls and is called, so that where others see a node is where they can reach it. Miner and validator share it. What happens comes as [`Arrival`]s, which each role's core takes as its
//! own events; objects lie in the table under their digests until their owner drops them.

use crate::direct::Routes;
use crate::endpoint::{Callers, any_port_like};
use crate::invitation::InvitationError;
use crate::link::Kind;
use crate::{Config, Connection, Endpoint, Invitation, Received, TransportError};
use bytes::Bytes;
use spec::{Digest, NodeId};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use store::presigned::Client;
use store::retry::patiently;
use tokio::sync::{Semaphore, mpsc};
use wire::neighbours::AS_SEEN;
use wire::{Frame, Key, Message, ObjectRef, PartHead, PayloadHead, Presigned};

/// How long a fetch or an upload may take, with all waiting for a store that is away, besides what its bytes take at the slowest.
const STORE_DEADLINE: Duration = Duration::from_secs(120);
/// The slowest that a transfer may be, in bytes/s.
const STORE_BYTES_PER_S: u64 = 125_000;

/// How long a transfer of so many bytes may take.
fn transfer_deadline(bytes: u64) -> Duration {
    STORE_DEADLINE + Duration::from_secs(bytes / STORE_BYTES_PER_S)
}

/// Objects that a node fetches or uploads at a time. A store serves so many connections and no more: hundreds of a few
/// nodes, idle ones among them, would make others wait for longer than they may.
const TRANSFERS_MAX: usize = 8;

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The invitation's host.
    #[error(transparent)]
    Invitation(#[from] InvitationError),
    /// The connection.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

/// What happens to a node.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // moved, not stored by the thousand
pub enum Arrival {
    /// The orchestrator said something.
    Message(Message),
    /// A payload lies in the table.
    Payload {
        /// What came with it.
        head: PayloadHead,
        /// Its block, named by its own bytes.
        block: ObjectRef,
    },
    /// A part of a merge lies in the table.
    Part {
        /// What came with it.
        head: PartHead,
        /// The part, named by its own bytes.
        block: ObjectRef,
    },
    /// An object was fetched, verified, and lies in the table.
    Fetched(Digest),
    /// An object is in the store.
    Uploaded(Digest),
    /// A fetch or an upload failed, after its retries.
    StoreFailed {
        /// Which object.
        digest: Digest,
        /// Whether the store answered that it holds no such object.
        missing: bool,
        /// Why.
        why: String,
    },
    /// The connection is up again.
    Connected,
    /// The connection is gone, or could not be made again.
    Disconnected {
        /// Why.
        why: String,
    },
    /// The direct connection to a neighbour is gone: what was sent over it may not have arrived, and what is sent from
    /// now on goes through the relay.
    RouteLost(NodeId),
}

/// Bytes by digest, shared by a shell and its workers.
#[derive(Debug, Clone, Default)]
pub struct Objects(Arc<Mutex<BTreeMap<Digest, Vec<Bytes>>>>);

impl Objects {
    /// The object's bytes, if they are here; those of an object in parts are copied into one.
    pub fn get(&self, digest: &Digest) -> Option<Bytes> {
        let parts = self.table().get(digest).cloned()?;
        Some(match <[Bytes; 1]>::try_from(parts) {
            Ok([whole]) => whole,
            Err(parts) => parts.concat().into(),
        })
    }

    /// Puts bytes under their digest.
    pub fn put(&self, bytes: Bytes) -> ObjectRef {
        let object = ObjectRef::of(&bytes);
        self.table().insert(object.digest, vec![bytes]);
        object
    }

    /// Puts bytes under the digest that their maker computed with them.
    pub fn put_known(&self, digest: Digest, bytes: Bytes) -> ObjectRef {
        self.put_parts(digest, vec![bytes])
    }

    /// As [`Objects::put_known`], of bytes that lie one after another in `parts`, some of which other objects may share: few are
    /// ever wanted whole.
    pub fn put_parts(&self, digest: Digest, parts: Vec<Bytes>) -> ObjectRef {
        let object = ObjectRef { digest, bytes: parts.iter().map(|part| part.len() as u64).sum() };
        self.table().insert(digest, parts);
        object
    }

    /// Drops an object.
    pub fn forget(&self, digest: &Digest) {
        self.table().remove(digest);
    }

    fn table(&self) -> std::sync::MutexGuard<'_, BTreeMap<Digest, Vec<Bytes>>> {
        // A table is whole after every call, so one left by a panic elsewhere is still good.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A node that joined.
pub struct Node<E> {
    /// The newest; it is replaced where it was lost.
    connection: Arc<Mutex<Connection>>,
    pub(crate) caller: Arc<Caller>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) routes: Arc<Routes>,
    objects: Objects,
    client: Client,
    transfers: Arc<Semaphore>,
    pub(crate) events: mpsc::Sender<E>,
    translate: fn(Arrival) -> Option<E>,
}

/// Who calls whom.
pub(crate) struct Caller {
    invitation: Invitation,
    pub(crate) key: Key,
    pub(crate) config: Config,
}

impl Caller {
    async fn call(&self, endpoint: &Endpoint) -> Result<Connection, JoinError> {
        let to = (self.invitation.resolve().await?, self.invitation.orchestrator);
        Ok(endpoint.call(to, &self.key, self.config.clone(), Kind::ToHub).await?)
    }
}

// By hand: a node may be cloned whatever its events are.
impl<E> Clone for Node<E> {
    fn clone(&self) -> Self {
        Self {
            connection: self.connection.clone(),
            caller: self.caller.clone(),
            endpoint: self.endpoint.clone(),
            routes: self.routes.clone(),
            objects: self.objects.clone(),
            client: self.client.clone(),
            transfers: self.transfers.clone(),
            events: self.events.clone(),
            translate: self.translate,
        }
    }
}

impl<E: Send + 'static> Node<E> {
    /// Calls the orchestrator of an invitation, from `listen` (`None`: any free port), where neighbours may call this
    /// node once it has some; from then on `events` gets what happens, as `translate` says it (`None`: of no interest to
    /// this role).
    ///
    /// # Errors
    /// When `listen` is taken, or the host has no address, does not answer, or proves another key.
    pub async fn join(
        invitation: &Invitation,
        listen: Option<SocketAddr>,
        key: &Key,
        config: Config,
        events: mpsc::Sender<E>,
        translate: fn(Arrival) -> Option<E>,
    ) -> Result<Self, JoinError> {
        let listen = match listen {
            Some(address) => address,
            None => any_port_like(invitation.resolve().await?),
        };
        let routes = Arc::new(Routes::default());
        let callers = Callers::Neighbours(routes.clone());
        let endpoint = Arc::new(Endpoint::listen_with(listen, key, config.direct(), callers)?);
        let caller = Arc::new(Caller { invitation: invitation.clone(), key: key.clone(), config });
        let connection = caller.call(&endpoint).await?;
        let node = Self {
            connection: Arc::new(Mutex::new(connection.clone())),
            caller,
            endpoint,
            routes,
            objects: Objects::default(),
            client: Client::new(),
            transfers: Arc::new(Semaphore::new(TRANSFERS_MAX)),
            events,
            translate,
        };
        tokio::spawn(node.clone().take_calls());
        tokio::spawn(node.clone().listen(connection));
        Ok(node)
    }

    /// Calls again after `wait`, in the background; told as [`Arrival::Connected`] or [`Arrival::Disconnected`].
    pub fn call_again(&self, wait: Duration) {
        let node = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            match node.caller.call(&node.endpoint).await {
                Ok(connection) => {
                    *node.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection.clone();
                    // Before anything that comes over it.
                    if node.tell(Arrival::Connected).await {
                        node.listen(connection).await;
                    }
                }
                Err(error) => drop(node.tell(Arrival::Disconnected { why: error.to_string() }).await),
            }
        });
    }

    /// Where others may reach this node, as far as it can know: where the orchestrator sees it, and its own address on the
    /// way there.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let bound = self.endpoint.local_addr();
        let own = match bound.ip() {
            ip if !ip.is_unspecified() => Some(ip),
            _ => own_ip_towards(self.connection().link().quic.remote_address()).ok(),
        };
        [Some(AS_SEEN), own.map(|ip| SocketAddr::new(ip, bound.port()))].into_iter().flatten().collect()
    }

    /// The node's objects.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// The newest connection, for its statistics and its end.
    pub fn connection(&self) -> Connection {
        // The lock is held for a clone or an assignment, neither of which can fail midway.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends a message to the orchestrator. A failure is told as `Disconnected`, by whoever listens.
    pub async fn send(&self, message: Message) {
        let connection = self.connection();
        let frame = Frame::new(connection.peer(), message);
        deliver(connection, frame).await;
    }

    /// Sends a message with an object of the table as its body to another node: directly where a connection is up, else
    /// through the relay. An object that is not in the table is a bug of the caller, told as a failed object.
    pub async fn send_object(&self, to: NodeId, message: Message, block: &Digest) {
        let Some(frame) = self.with_object(to, message, block).await else { return };
        match self.routes.get(to) {
            // A neighbour that takes nothing must not hold up what goes to others.
            Some(route) => drop(tokio::spawn(deliver(route, frame))),
            None => deliver(self.connection(), frame).await,
        }
    }

    /// As [`send_object`](Self::send_object), in the background: it may overtake, and be overtaken by, what is sent besides.
    pub async fn post_object(&self, to: NodeId, message: Message, block: &Digest) {
        if let Some(frame) = self.with_object(to, message, block).await {
            let way = self.routes.get(to).unwrap_or_else(|| self.connection());
            tokio::spawn(deliver(way, frame));
        }
    }

    async fn with_object(&self, to: NodeId, message: Message, block: &Digest) -> Option<Frame> {
        let body = self.objects.get(block);
        if body.is_none() {
            self.tell(missing(block)).await;
        }
        body.map(|body| Frame { to, message, body })
    }

    /// Fetches an object in the background.
    pub fn fetch(&self, object: ObjectRef, request: Presigned) {
        let node = self.clone();
        tokio::spawn(async move {
            let turn = node.transfers.acquire().await;
            let get = |left| node.client.get(&request, &object, left);
            let got = patiently(transfer_deadline(object.bytes), get, say).await;
            let arrival = match got {
                Ok(bytes) => {
                    node.objects.put(bytes);
                    Arrival::Fetched(object.digest)
                }
                Err(error) => failed(object.digest, &error),
            };
            drop(turn);
            node.tell(arrival).await;
        });
    }

    /// Uploads an object of the table in the background.
    pub fn upload(&self, object: ObjectRef, request: Presigned) {
        let node = self.clone();
        tokio::spawn(async move {
            let digest = object.digest;
            let Some(bytes) = node.objects.get(&digest) else {
                node.tell(missing(&digest)).await;
                return;
            };
            let turn = node.transfers.acquire().await;
            let put = |left| node.client.put(&request, bytes.clone(), left);
            let arrival = match patiently(transfer_deadline(bytes.len() as u64), put, say).await {
                Ok(_) => Arrival::Uploaded(digest),
                Err(error) => failed(digest, &error),
            };
            drop(turn);
            node.tell(arrival).await;
        });
    }

    /// Says goodbye and closes the connection.
    pub async fn leave(&self, why: &str) {
        self.end_routes();
        self.connection().close(why).await;
    }

    /// Tells the role; whether somebody still listens.
    pub(crate) async fn tell(&self, arrival: Arrival) -> bool {
        match (self.translate)(arrival) {
            Some(event) => self.events.send(event).await.is_ok(),
            None => true,
        }
    }

    /// What a frame is to this node; its body lies in the table.
    pub(crate) fn arrived(&self, Frame { message, body, .. }: Frame) -> Arrival {
        match message {
            Message::Payload(head) => Arrival::Payload { head, block: self.objects.put(body) },
            Message::Part(head) => Arrival::Part { head, block: self.objects.put(body) },
            other => Arrival::Message(other),
        }
    }

    async fn listen(self, connection: Connection) {
        loop {
            let arrival = match connection.recv().await {
                Ok(Received::Frame(frame)) => self.arrived(frame),
                Ok(Received::Suspected | Received::Recovered) => continue,
                Err(error) => {
                    self.tell(Arrival::Disconnected { why: error.to_string() }).await;
                    return;
                }
            };
            if !self.tell(arrival).await {
                return;
            }
        }
    }
}

/// The address from which this machine's packets to another leave it. Nothing is sent to find out.
fn own_ip_towards(other: SocketAddr) -> std::io::Result<IpAddr> {
    let socket = std::net::UdpSocket::bind(any_port_like(other))?;
    socket.connect(other)?;
    Ok(socket.local_addr()?.ip())
}

/// Who watches a node should know what it waits for.
fn say(error: &store::Error, pause: Duration) {
    tracing::warn!("{error}: this node does, in {} ms", pause.as_millis());
}

/// A connection that fails is told by whoever listens to it.
async fn deliver(connection: Connection, frame: Frame) {
    if let Err(error) = connection.send(frame).await {
        tracing::debug!(%error, "frame not sent");
    }
}

fn failed(digest: Digest, error: &store::Error) -> Arrival {
    let missing = matches!(error, store::Error::Missing { .. });
    Arrival::StoreFailed { digest, missing, why: error.to_string() }
}

/// What was to be sent is not here.
fn missing(digest: &Digest) -> Arrival {
    let why = "it is not in this node's table of objects".into();
    Arrival::StoreFailed { digest: *digest, missing: false, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_in_parts_is_the_same_object() {
        let (objects, bytes) = (Objects::default(), Bytes::from_static(b"weights and momentum"));
        let whole = ObjectRef::of(&bytes);
        let parts = vec![bytes.slice(..7), bytes.slice(7..12), bytes.slice(12..)];
        assert_eq!(objects.put_parts(whole.digest, parts), whole);
        assert_eq!(objects.get(&whole.digest), Some(bytes.clone()));
        assert_eq!(objects.put_known(whole.digest, bytes.clone()), whole);
        assert_eq!(objects.get(&whole.digest), Some(bytes));
        objects.forget(&whole.digest);
        assert_eq!(objects.get(&whole.digest), None);
    }
}
