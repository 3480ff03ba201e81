//! Conversations over real sockets on this machine. Every wait has a deadline.

mod bounds;
mod calls;
mod direct;
mod flow;
mod relay;
mod silence;
mod transfers;

use crate::reactor::{Reactor, transport_config};
use crate::{Config, Connection, Endpoint, Hub, HubEvent, Received, TransportError, greeting, tls};
use bytes::Bytes;
use spec::{Digest, Member, Mode, NodeId, Operation, Outcome};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use wire::{Frame, Key, Message, PayloadHead, PayloadKind, Receipt, Signed};

const DEADLINE: Duration = Duration::from_secs(20);

/// Runs a test on a runtime of its own, which like a caller's does nothing for the transport.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.expect("test in time") });
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("within the deadline")
}

/// Polls a condition that nothing announces.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn key(number: u8) -> Key {
    Key::from_seed([number; 32])
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

async fn call(addr: SocketAddr, expect: &Key, own: &Key) -> Connection {
    soon(Endpoint::connect(addr, expect.id(), own, Config::default())).await.unwrap()
}

/// A connection's two ends: who called, who was called.
async fn pair(config: Config) -> (Connection, Connection, Endpoint) {
    let endpoint = Endpoint::listen(loopback(), &key(1), config.clone()).unwrap();
    let own = key(2);
    let caller = Endpoint::connect(endpoint.local_addr(), key(1).id(), &own, config);
    let (caller, called) = soon(async { tokio::join!(caller, endpoint.accept()) }).await;
    (caller.unwrap(), called.unwrap(), endpoint)
}

/// A hub and the nodes of these keys on it.
async fn swarm(keys: &[u8], config: Config) -> (Hub, Vec<Connection>) {
    let hub = Hub::listen(loopback(), &key(1), config.clone()).unwrap();
    let mut nodes = Vec::new();
    for &number in keys {
        let own = key(number);
        let node = Endpoint::connect(hub.local_addr(), key(1).id(), &own, config.clone());
        nodes.push(soon(node).await.unwrap());
        assert_eq!(next(&hub).await, HubEvent::Joined(key(number).id()));
    }
    (hub, nodes)
}

async fn next(hub: &Hub) -> HubEvent {
    soon(hub.next()).await.expect("the hub is up")
}

async fn frame(connection: &Connection) -> Frame {
    match soon(connection.recv()).await {
        Ok(Received::Frame(frame)) => frame,
        other => panic!("expected a frame, found {other:?}"),
    }
}

/// Why a connection ended, once all before was taken.
async fn end(connection: &Connection) -> TransportError {
    soon(async {
        loop {
            if let Err(why) = connection.recv().await {
                return why;
            }
        }
    })
    .await
}

fn ready(to: NodeId, epoch: u32) -> Frame {
    Frame::new(to, Message::Ready { epoch, turn: 0 })
}

/// A payload as a miner sends it: the receipt names the digest of the body.
fn payload(to: NodeId, kind: PayloadKind, body: Vec<u8>) -> Frame {
    let member = Member { assignment: 1, attempt: 0, step: 2, position: 3, microbatch: 4 };
    let receipt = Receipt {
        run: Digest([1; 32]),
        mode: Mode::Portable,
        epoch: 1,
        sequence: 9,
        previous: Digest([2; 32]),
        stage: 0,
        operation: Operation::Forward(member),
        state: None,
        input_receipt: None,
        input: None,
        output: Some(Digest::of(&body)),
        loss_q32: None,
        outcome: Outcome::Ok,
    };
    let receipt = Signed::new(receipt, &key(2));
    let head = PayloadHead { kind, assignment: 1, attempt: 0, receipt };
    Frame { to, message: Message::Payload(head), body: Bytes::from(body) }
}

/// Whether the body is the one that the receipt in the head names.
fn is_whole(frame: &Frame) -> bool {
    let Message::Payload(head) = &frame.message else { return false };
    head.receipt.verify().is_ok_and(|receipt| receipt.output == Some(Digest::of(&frame.body)))
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    getrandom::fill(&mut noise).unwrap();
    noise
}

/// For hubs that rogues call: these send no heartbeat, and it is not for their silence that they are judged.
fn patient() -> Config {
    let minute = Duration::from_secs(60);
    Config { suspect_after: minute, lost_after: minute, ..Config::default() }
}

/// A node that holds a right key and keeps no rule: QUIC without our side of the conversation.
struct Rogue {
    _reactor: Reactor,
    quic: quinn::Connection,
    control: quinn::SendStream,
    _answers: quinn::RecvStream,
}

impl Rogue {
    async fn call(addr: SocketAddr, expect: &Key, own: &Key) -> Self {
        let config = Config::default();
        let reactor = Reactor::start(loopback(), None, &config).unwrap();
        let (tls, _) = tls::client(own, expect.id()).unwrap();
        let mut client = quinn::ClientConfig::new(Arc::new(tls));
        client.transport_config(Arc::new(transport_config(&config, 0, None)));
        let quic = soon(reactor.endpoint.connect_with(client, addr, "iota").unwrap()).await.unwrap();
        let (control, answers) = soon(greeting::call(&quic)).await.unwrap();
        Self { _reactor: reactor, quic, control, _answers: answers }
    }

    /// Sends these bytes as a payload stream, finished or left open.
    async fn payload(&self, bytes: &[u8], finish: bool) -> quinn::SendStream {
        let mut stream = soon(self.quic.open_uni()).await.unwrap();
        soon(stream.write_all(bytes)).await.unwrap();
        if finish {
            stream.finish().unwrap();
        }
        stream
    }

    /// The reason with which the other side closed.
    async fn refusal(&self) -> String {
        soon(self.quic.closed()).await.to_string()
    }
}

/// The bytes of a frame as they travel, unpacked.
fn bytes_of(frame: &Frame) -> Vec<u8> {
    let (header, head) = wire::envelope::encode(frame.to, &frame.message, &frame.body, None).unwrap();
    [&header[..], &head, &frame.body].concat()
}
