//! Direct routes between the nodes of a hub.

use super::*;
use crate::Invitation;
use crate::link::Kind;
use crate::node::{Arrival, Node};
use std::collections::BTreeSet;
use std::time::Instant;
use tokio::sync::mpsc;
use wire::{Carried, Neighbour, Part, PartHead};

/// A node of a hub, and what happens to it.
pub(super) struct Peer {
    key: Key,
    pub node: Node<Arrival>,
    arrivals: mpsc::Receiver<Arrival>,
}

impl Peer {
    pub async fn join(hub: &Hub, number: u8) -> Self {
        let (events, arrivals) = mpsc::channel(1024);
        let (port, orchestrator) = (hub.local_addr().port(), key(1).id());
        let invitation = Invitation { host: "127.0.0.1".into(), port, orchestrator, token: vec![1] };
        let key = key(number);
        let node = soon(Node::join(&invitation, None, &key, Config::default(), events, Some)).await.unwrap();
        assert_eq!(next(hub).await, HubEvent::Joined(key.id()));
        Self { key, node, arrivals }
    }

    fn id(&self) -> NodeId {
        self.key.id()
    }

    fn address(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.node.endpoint.local_addr().port()).into()
    }

    /// As others are told of it.
    fn known(&self) -> Neighbour {
        Neighbour { node: self.id(), addresses: vec![self.address()] }
    }

    fn meets(&self, others: &[&Self]) {
        self.node.set_neighbours(others.iter().map(|other| other.known()).collect());
    }

    async fn has_route_to(&self, other: &Self) {
        soon(until(|| self.node.routes.get(other.id()).is_some())).await;
    }

    /// Sends a block of noise, which it keeps; the answer is its digest.
    async fn sends(&self, to: NodeId, bytes: usize) -> Digest {
        let block = self.node.objects().put(noise(bytes).into());
        self.sends_again(to, &block.digest).await;
        block.digest
    }

    async fn sends_again(&self, to: NodeId, block: &Digest) {
        let Frame { message, .. } = payload(to, PayloadKind::Activation, b"named by the head".to_vec());
        self.node.post_object(to, message, block).await;
    }

    pub async fn next(&mut self) -> Arrival {
        soon(self.arrivals.recv()).await.expect("the node is there")
    }

    /// The next block that arrives.
    async fn takes(&mut self) -> Digest {
        match self.next().await {
            Arrival::Payload { block, .. } | Arrival::Part { block, .. } => block.digest,
            other => panic!("expected a block, found {other:?}"),
        }
    }
}

/// Keys of the smaller and the larger id, of nodes 2 and 3.
async fn two(hub: &Hub) -> [Peer; 2] {
    let mut peers = [Peer::join(hub, 2).await, Peer::join(hub, 3).await];
    peers.sort_by_key(Peer::id);
    peers
}

async fn two_with_a_route(hub: &Hub) -> [Peer; 2] {
    let [smaller, larger] = two(hub).await;
    smaller.meets(&[&larger]);
    larger.meets(&[&smaller]);
    smaller.has_route_to(&larger).await;
    larger.has_route_to(&smaller).await;
    [smaller, larger]
}

fn hub() -> Hub {
    Hub::listen(loopback(), &key(1), Config::default()).unwrap()
}

#[test]
fn neighbours_send_past_the_relay() {
    run(async {
        let hub = hub();
        let [mut one, mut other] = two_with_a_route(&hub).await;
        let mut sent = BTreeSet::new();
        for bytes in [1, 3000, 300_000] {
            sent.insert(one.sends(other.id(), bytes).await);
            let back = other.sends(one.id(), bytes).await;
            assert_eq!(one.takes().await, back);
        }
        let Message::Payload(PayloadHead { receipt, .. }) =
            payload(one.id(), PayloadKind::Activation, vec![1]).message
        else {
            unreachable!()
        };
        let head = Message::Part(PartHead { part: Part::Piece { shard: 1 }, receipt });
        let piece = one.node.objects().put(noise(9000).into());
        sent.insert(piece.digest);
        one.node.send_object(other.id(), head, &piece.digest).await;
        for _ in 0..4 {
            assert!(sent.remove(&other.takes().await));
        }
        let mut carried = Carried::default();
        soon(async {
            while carried.frames < 4 {
                let more = one.node.carried();
                carried.frames += more.frames;
                carried.bytes_plain += more.bytes_plain;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_eq!((carried.frames, carried.bytes_plain), (4, 312_001));
        assert_eq!(one.node.carried(), Carried::default(), "it was told");
        assert_eq!(hub.relay_statistics().frames_forwarded, 0);
        // Where the orchestrator sees a node is where others reach it.
        assert_eq!(hub.address_of(one.id()), Some(one.address()));
        assert!(one.node.addresses().contains(&one.address()), "{:?}", one.node.addresses());
    });
}

#[test]
fn a_neighbour_that_hears_of_it_first_does_not_call_in_vain() {
    run(async {
        let hub = hub();
        let [smaller, larger] = two(&hub).await;
        larger.meets(&[]);
        let began = Instant::now();
        smaller.meets(&[&larger]);
        soon(until(|| larger.node.endpoint.reactor().endpoint.open_connections() == 2)).await;
        larger.meets(&[&smaller]);
        smaller.has_route_to(&larger).await;
        assert!(began.elapsed() < Duration::from_millis(900), "up after {:?}", began.elapsed());
    });
}

#[test]
fn what_cannot_be_reached_goes_through_the_relay_until_the_other_calls() {
    run(async {
        let hub = hub();
        let [smaller, mut larger] = two(&hub).await;
        let mute = std::net::UdpSocket::bind(loopback()).unwrap();
        let unreachable = Neighbour { node: larger.id(), addresses: vec![mute.local_addr().unwrap()] };
        smaller.node.set_neighbours(vec![unreachable]);
        let block = smaller.sends(larger.id(), 5000).await;
        assert_eq!(larger.takes().await, block);
        assert_eq!(hub.relay_statistics().frames_forwarded, 1);
        larger.meets(&[&smaller]);
        larger.has_route_to(&smaller).await;
        smaller.has_route_to(&larger).await;
        let block = smaller.sends(larger.id(), 5000).await;
        assert_eq!(larger.takes().await, block);
        assert_eq!(hub.relay_statistics().frames_forwarded, 1);
    });
}

#[test]
fn a_route_that_breaks_under_payloads_loses_none() {
    run(async {
        let hub = hub();
        let [mut one, mut other] = two_with_a_route(&hub).await;
        let mut unused = BTreeSet::new();
        for index in 0..60 {
            unused.insert(one.sends(other.id(), 200_000).await);
            if index == 30 {
                let (peer, why) = (other.id(), "cut by the trial".into());
                let route = one.node.routes.get(peer).unwrap();
                // Blocks are under way, and none of them is known to be used.
                route.end(TransportError::Misconduct { peer, why });
            }
        }
        assert_eq!(one.next().await, Arrival::RouteLost(other.id()));
        for block in &unused {
            one.sends_again(other.id(), block).await;
        }
        let mut lost = 0;
        while !unused.is_empty() || lost == 0 {
            match other.next().await {
                Arrival::Payload { block, .. } => _ = unused.remove(&block.digest),
                Arrival::RouteLost(peer) => lost += u32::from(peer == one.id()),
                other => panic!("expected blocks and the end of the route, found {other:?}"),
            }
        }
        assert!(hub.relay_statistics().frames_forwarded >= 60 - 30, "{:?}", hub.relay_statistics());
        // Told once, until the next connection.
        assert!(one.arrivals.try_recv().is_err());
    });
}

#[test]
fn a_stranger_is_hung_up_on_and_a_crowd_of_them_bounded() {
    run(async {
        let hub = hub();
        let [smaller, larger] = two(&hub).await;
        let quick = Config { connect_timeout: Duration::from_millis(300), ..Config::default() };
        let call = |config: Config| async {
            soon(Endpoint::connect(larger.address(), larger.id(), &key(9), config)).await.err().unwrap()
        };
        // Before it is told of neighbours it does not even answer.
        assert!(matches!(call(quick).await, TransportError::Unreachable { .. }));
        larger.meets(&[&smaller]);
        let refusal = call(Config::default()).await.to_string();
        assert!(refusal.contains("not a neighbour of this node"), "{refusal}");

        let config = Config::default();
        let reactor = Reactor::start(loopback(), None, &config).unwrap();
        let (tls, _) = tls::client(&key(9), larger.id()).unwrap();
        let mut client = quinn::ClientConfig::new(Arc::new(tls));
        client.transport_config(Arc::new(transport_config(&config, 0, None)));
        let crowd: Vec<_> = (0..config.direct().connections_max + 20)
            .map(|_| reactor.endpoint.connect_with(client.clone(), larger.address(), "iota").unwrap())
            .collect();
        let crowd: Vec<_> =
            crowd.into_iter().map(|call| tokio::spawn(async { call.await.is_ok() })).collect();
        let mut refused = 0;
        for call in crowd {
            refused += u32::from(!soon(call).await.unwrap());
        }
        assert!(refused >= 20, "{refused} of the crowd were refused");
        // It is gone by the time that a stranger is kept waiting, and costs no neighbour its route.
        soon(until(|| larger.node.endpoint.reactor().endpoint.open_connections() == 1)).await;
        smaller.meets(&[&larger]);
        smaller.has_route_to(&larger).await;
    });
}

#[test]
fn a_neighbour_that_keeps_no_rule_loses_its_route_and_no_more() {
    run(async {
        let hub = hub();
        let mut honest = Peer::join(&hub, 2).await;
        let rogue_key = key(9);
        let known = Neighbour { node: rogue_key.id(), addresses: vec![] };
        honest.node.set_neighbours(vec![known]);
        let finish = Frame::new(honest.id(), Message::Finish { reason: "obey".into() });
        let mut damaged = bytes_of(&payload(honest.id(), PayloadKind::Activation, vec![7; 1000]));
        *damaged.last_mut().unwrap() ^= 1;
        let for_another = bytes_of(&payload(key(1).id(), PayloadKind::Activation, vec![7; 1000]));
        for (control, bytes, words) in [
            (true, bytes_of(&finish), "it said what is not a neighbour's to say"),
            (false, for_another, "a frame for another node"),
            (false, damaged, "checksum"),
        ] {
            let mut rogue = Rogue::call(honest.address(), &honest.key, &rogue_key).await;
            if control {
                soon(rogue.control.write_all(&bytes)).await.unwrap();
            } else {
                rogue.payload(&bytes, true).await;
            }
            let told = rogue.refusal().await;
            assert!(told.contains(words), "{told}");
            // What it said went nowhere.
            assert_eq!(honest.next().await, Arrival::RouteLost(rogue_key.id()));
        }
        hub.send(ready(honest.id(), 3)).await.unwrap();
        assert_eq!(honest.next().await, Arrival::Message(Message::Ready { epoch: 3, turn: 0 }));
    });
}

#[test]
fn a_neighbour_that_does_not_take_a_payload_loses_its_route() {
    run(async {
        let hub = hub();
        let mut honest = Peer::join(&hub, 2).await;
        let rogue_key = key(9);
        honest.node.set_neighbours(vec![Neighbour { node: rogue_key.id(), addresses: vec![] }]);
        let rogue = Rogue::call(honest.address(), &honest.key, &rogue_key).await;
        soon(until(|| honest.node.routes.get(rogue_key.id()).is_some())).await;
        // More than fits between the two.
        honest.sends(rogue_key.id(), 8 << 20).await;
        soon(rogue.quic.accept_uni()).await.unwrap().stop(quinn::VarInt::from_u32(1)).unwrap();
        // What is under way may push the reason out of the socket's buffer, so it is not looked at.
        soon(rogue.quic.closed()).await;
        assert_eq!(honest.next().await, Arrival::RouteLost(rogue_key.id()));
    });
}

#[test]
fn a_silent_neighbour_is_sent_to_through_the_relay_again() {
    run(async {
        let hub = hub();
        let [mut one, mut other] = two(&hub).await;
        let known = Neighbour { node: other.id(), addresses: vec![] };
        one.node.set_neighbours(vec![known]);
        // It has the other's key, and never a heartbeat.
        let _silent = Rogue::call(one.address(), &one.key, &other.key).await;
        let began = Instant::now();
        one.has_route_to(&other).await;
        assert_eq!(one.next().await, Arrival::RouteLost(other.id()));
        let patience = Config::default().suspect_after;
        assert!(began.elapsed() < 2 * patience, "lost after {:?}", began.elapsed());
        let block = one.sends(other.id(), 5000).await;
        assert_eq!(other.takes().await, block);
        assert_eq!(hub.relay_statistics().frames_forwarded, 1);
    });
}

#[test]
fn of_two_calls_that_of_the_smaller_key_stays() {
    run(async {
        let hub = hub();
        let [mut smaller, mut larger] = two_with_a_route(&hub).await;
        let again = async |from: &Peer, to: &Peer| {
            let config = from.node.caller.config.direct();
            let call = from.node.endpoint.call((to.address(), to.id()), &from.key, config, Kind::Direct);
            match soon(call).await {
                Ok(connection) => from.node.take_route(connection, true),
                // It may hear so before it is done with its greeting.
                Err(why) => assert!(why.to_string().contains("another connection is up"), "{why}"),
            }
        };
        let link = |peer: &Peer, to: NodeId| peer.node.routes.get(to).unwrap().link().clone();
        let before = link(&smaller, larger.id());
        again(&larger, &smaller).await;
        let block = larger.sends(smaller.id(), 10).await;
        assert_eq!(smaller.takes().await, block);
        assert!(Arc::ptr_eq(&before, &link(&smaller, larger.id())));
        again(&smaller, &larger).await;
        assert_eq!(smaller.next().await, Arrival::RouteLost(larger.id()));
        assert_eq!(larger.next().await, Arrival::RouteLost(smaller.id()));
        larger.has_route_to(&smaller).await;
        let block = larger.sends(smaller.id(), 10).await;
        assert_eq!(smaller.takes().await, block);
        assert!(!Arc::ptr_eq(&before, &link(&smaller, larger.id())));
        // Who leaves is sent to through the relay, which says that it is gone.
        larger.meets(&[]);
        assert_eq!(smaller.next().await, Arrival::RouteLost(larger.id()));
        assert_eq!(hub.relay_statistics().frames_forwarded, 0);
    });
}
