//! Frames that pass through a hub.

use super::*;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::collections::BTreeMap;

/// 200 bodies from 1 byte to 4 MiB, their lengths spread evenly over the powers of two; one in two packs.
fn bodies() -> Vec<Vec<u8>> {
    let mut runner = TestRunner::deterministic();
    let length = (0u32..=21, any::<u32>()).prop_map(|(power, low)| (1 << power) + low % (1 << power));
    let mut bodies: Vec<_> = (0..198)
        .map(|index| {
            let length = length.new_tree(&mut runner).unwrap().current() as usize;
            let mut body = noise(length);
            if index % 2 == 0 {
                body.iter_mut().for_each(|byte| *byte &= 7);
            }
            body
        })
        .collect();
    bodies.push(noise(1));
    bodies.push(noise(4 << 20));
    bodies
}

#[test]
fn two_hundred_payloads_pass_the_relay_whole() {
    run(async {
        let (hub, nodes) = swarm(&[2, 3], Config::default()).await;
        let bodies = bodies();
        let mut awaited: BTreeMap<Digest, usize> = BTreeMap::new();
        for body in &bodies {
            *awaited.entry(Digest::of(body)).or_default() += 1;
        }
        let total: u64 = bodies.iter().map(|body| body.len() as u64).sum();
        let sending = async {
            for (index, body) in bodies.into_iter().enumerate() {
                let kind = if index % 3 == 0 { PayloadKind::Gradient } else { PayloadKind::Activation };
                nodes[0].send(payload(key(3).id(), kind, body)).await.unwrap();
            }
        };
        let receiving = async {
            while !awaited.is_empty() {
                let found = frame(&nodes[1]).await;
                assert!(is_whole(&found), "a body of {} bytes came changed", found.body.len());
                let digest = Digest::of(&found.body);
                let count = awaited.get_mut(&digest).expect("it was sent, and came once");
                *count -= 1;
                if *count == 0 {
                    awaited.remove(&digest);
                }
            }
        };
        tokio::join!(sending, receiving);
        let statistics = nodes[1].statistics();
        assert_eq!((statistics.frames_received, statistics.body_bytes_received), (200, total));
        assert!(statistics.packed_bytes_received < total * 4 / 5);
        soon(nodes[0].close("done")).await;
        let relayed = hub.relay_statistics();
        assert_eq!((relayed.frames_forwarded, relayed.body_bytes_forwarded), (200, total));
        assert_eq!(relayed.packed_bytes_forwarded, statistics.packed_bytes_received);
        assert_eq!((relayed.frames_unroutable, relayed.frames_cut), (0, 0));
    });
}

#[test]
fn nobody_speaks_to_a_node_but_its_hub() {
    run(async {
        let (hub, nodes) = swarm(&[2, 3], Config::default()).await;
        nodes[0].send(ready(key(3).id(), 4)).await.unwrap();
        let why = end(&nodes[0]).await.to_string();
        assert!(why.contains("a message of kind 5 for another node"), "{why}");
        assert!(matches!(next(&hub).await, HubEvent::Lost { peer, .. } if peer == key(2).id()));
        hub.send(ready(key(3).id(), 7)).await.unwrap();
        assert_eq!(frame(&nodes[1]).await, ready(key(3).id(), 7));
    });
}

#[test]
fn payloads_for_nobody_are_counted() {
    run(async {
        let (hub, nodes) = swarm(&[2], Config::default()).await;
        nodes[0].send(payload(key(200).id(), PayloadKind::Activation, noise(1 << 20))).await.unwrap();
        soon(nodes[0].close("done")).await;
        assert_eq!(hub.relay_statistics().frames_unroutable, 1);
        let error = hub.send(ready(key(200).id(), 0)).await.unwrap_err();
        assert_eq!(error, TransportError::NotConnected { to: key(200).id() });
    });
}

#[test]
fn who_is_confined_speaks_to_the_hub_alone() {
    run(async {
        let (hub, nodes) = swarm(&[2, 3], Config::default()).await;
        hub.confine(key(2).id());
        nodes[0].send(payload(key(3).id(), PayloadKind::Activation, noise(1000))).await.unwrap();
        soon(until(|| hub.relay_statistics().frames_unroutable == 1)).await;
        nodes[0].send(ready(key(1).id(), 4)).await.unwrap();
        assert!(matches!(next(&hub).await, HubEvent::Frame { from, .. } if from == key(2).id()));
        hub.send(ready(key(2).id(), 7)).await.unwrap();
        assert_eq!(frame(&nodes[0]).await, ready(key(2).id(), 7));
        assert_eq!(hub.relay_statistics().frames_forwarded, 0);
    });
}

#[test]
fn what_a_rogue_sends_through_the_relay_does_not_cost_the_receiver_its_seat() {
    run(async {
        let (hub, nodes) = swarm(&[2, 3], patient()).await;
        let whole = bytes_of(&payload(key(3).id(), PayloadKind::Activation, noise(300_000)));
        let mut damaged = whole.clone();
        *damaged.last_mut().unwrap() ^= 1;

        let rogue = Rogue::call(hub.local_addr(), &key(1), &key(9)).await;
        assert_eq!(next(&hub).await, HubEvent::Joined(key(9).id()));
        rogue.payload(&damaged, true).await;
        // Half a frame, then death: the relay has passed on what there was.
        let half = rogue.payload(&whole[..150_000], false).await;
        nodes[1].send(ready(key(1).id(), 1)).await.unwrap();
        assert!(matches!(next(&hub).await, HubEvent::Frame { .. }));
        soon(until(|| nodes[1].statistics().frames_damaged == 1)).await;
        rogue.quic.close(quinn::VarInt::from_u32(0), b"gone");
        drop(half);
        assert!(matches!(next(&hub).await, HubEvent::Lost { peer, .. } if peer == key(9).id()));

        let honest = payload(key(3).id(), PayloadKind::Activation, noise(1000));
        nodes[0].send(honest.clone()).await.unwrap();
        assert_eq!(frame(&nodes[1]).await, honest);
        soon(until(|| nodes[1].statistics().frames_damaged == 2)).await;
        assert_eq!(hub.peers(), [key(2).id(), key(3).id()]);
    });
}

#[test]
fn a_node_that_comes_again_takes_its_own_place() {
    run(async {
        let (hub, nodes) = swarm(&[2], Config::default()).await;
        let again = call(hub.local_addr(), &key(1), &key(2)).await;
        let peer = key(2).id();
        let why = TransportError::Replaced { peer };
        assert_eq!(next(&hub).await, HubEvent::Lost { peer, why: why.clone() });
        assert_eq!(next(&hub).await, HubEvent::Joined(peer));
        assert!(end(&nodes[0]).await.to_string().contains("connected anew"));
        hub.send(ready(peer, 4)).await.unwrap();
        assert_eq!(frame(&again).await, ready(peer, 4));
    });
}

#[test]
fn a_hub_that_shuts_down_says_so_to_everyone() {
    run(async {
        let (hub, nodes) = swarm(&[2, 3], Config::default()).await;
        for &to in &[key(2).id(), key(3).id()] {
            let reason = "the run is over".into();
            hub.send(Frame::new(to, Message::Finish { reason })).await.unwrap();
        }
        let last_words = async |node: &Connection| {
            let found = frame(node).await;
            (matches!(found.message, Message::Finish { .. }), end(node).await.to_string())
        };
        let (_, first, second) = soon(async {
            tokio::join!(hub.shut_down("all done"), last_words(&nodes[0]), last_words(&nodes[1]))
        })
        .await;
        for (finished, why) in [first, second] {
            assert!(finished && why.ends_with("ended: all done"), "{why}");
        }
        let mut lost = 0;
        while let Some(event) = soon(hub.next()).await {
            lost += u32::from(matches!(event, HubEvent::Lost { .. }));
        }
        assert_eq!(lost, 2);
    });
}
