//! Peers that keep no rule.

use super::*;
use wire::{Header, WireError};

/// What the hub says of a rogue with key 9, and that its other node goes on.
async fn judged(attack: impl AsyncFnOnce(&mut Rogue)) -> (TransportError, String) {
    let (hub, nodes) = swarm(&[2], patient()).await;
    let mut rogue = Rogue::call(hub.local_addr(), &key(1), &key(9)).await;
    assert_eq!(next(&hub).await, HubEvent::Joined(key(9).id()));
    attack(&mut rogue).await;
    let verdict = match next(&hub).await {
        HubEvent::Lost { peer, why } if peer == key(9).id() => why,
        other => panic!("expected the end of the rogue, found {other:?}"),
    };
    let told = rogue.refusal().await;
    nodes[0].send(ready(key(1).id(), 5)).await.unwrap();
    let frame = ready(key(1).id(), 5);
    assert_eq!(next(&hub).await, HubEvent::Frame { from: key(2).id(), frame });
    assert_eq!(hub.peers(), [key(2).id()]);
    (verdict, told)
}

fn header() -> Header {
    Header {
        kind: 8,
        packed: false,
        urgent: false,
        head_len: 100,
        body_len: 1000,
        unpacked_len: 1000,
        checksum: [0; 8],
        to: key(1).id(),
    }
}

#[test]
fn garbage_ends_the_connection_it_came_by_and_no_other() {
    run(async {
        let (verdict, told) = judged(async |rogue| {
            rogue.payload(&[b'x'; 64], true).await;
        })
        .await;
        let source = WireError::Magic { found: *b"xxxx" };
        assert_eq!(verdict, TransportError::Garbage { peer: key(9).id(), source });
        assert!(told.contains("the peer speaks another protocol"), "{told}");

        let (verdict, _) = judged(async |rogue| {
            soon(rogue.control.write_all(&[0; 64])).await.unwrap();
        })
        .await;
        assert!(matches!(verdict, TransportError::Garbage { .. }), "{verdict}");
    });
}

#[test]
fn a_length_beyond_its_bound_is_refused_before_anything_more_is_read() {
    run(async {
        for (head_len, body_len) in [(64 << 10 | 1, 1), (100, 256 << 20 | 1), (u32::MAX, u32::MAX)] {
            // The header alone is sent: whoever waited for the rest would wait for ever.
            let header = Header { head_len, body_len, unpacked_len: body_len, ..header() };
            let (verdict, told) = judged(async |rogue| {
                rogue.payload(&header.encode(), false).await;
            })
            .await;
            let TransportError::Garbage { source: WireError::TooLong { kind: 8, .. }, .. } = &verdict else {
                panic!("expected a length beyond its bound, found {verdict}");
            };
            assert!(told.contains("allowed"), "{told}");
        }
    });
}

#[test]
fn damaged_frames_are_the_senders_misconduct() {
    run(async {
        let mut damaged = bytes_of(&payload(key(1).id(), PayloadKind::Activation, vec![7; 1000]));
        *damaged.last_mut().unwrap() ^= 1;
        let (verdict, _) = judged(async |rogue| drop(rogue.payload(&damaged, true).await)).await;
        assert!(matches!(verdict, TransportError::Garbage { source: WireError::Checksum { kind: 8 }, .. }));

        let whole = bytes_of(&payload(key(1).id(), PayloadKind::Activation, vec![7; 1000]));
        for (bytes, words) in [
            (whole[..whole.len() - 10].to_vec(), "a frame that ends 10 bytes early"),
            ([&whole[..], b"!"].concat(), "bytes after the end of a frame"),
            (bytes_of(&ready(key(1).id(), 1)), "a message of kind 5 on a payload stream"),
            (Vec::new(), "a payload stream without a frame"),
            (whole[..30].to_vec(), "a header of 30 bytes, expected 64"),
        ] {
            let (verdict, _) = judged(async |rogue| drop(rogue.payload(&bytes, true).await)).await;
            let expected = TransportError::Misconduct { peer: key(9).id(), why: words.into() };
            assert_eq!(verdict, expected);
        }
        let (verdict, _) = judged(async |rogue| soon(rogue.control.write_all(&whole)).await.unwrap()).await;
        assert_eq!(
            verdict.to_string().split(": ").nth(1),
            Some("a body of 1000 bytes on the control stream")
        );
    });
}

#[test]
fn a_packed_body_that_swells_beyond_its_word_is_misconduct() {
    run(async {
        let plain = payload(key(1).id(), PayloadKind::Activation, vec![0; 1 << 20]);
        let packed = crate::pack::pack(&plain.body).unwrap();
        let (header, head) = wire::envelope::encode(plain.to, &plain.message, &packed, Some(1000)).unwrap();
        let bytes = [&header[..], &head, &packed].concat();
        let (verdict, _) = judged(async |rogue| drop(rogue.payload(&bytes, true).await)).await;
        let text = verdict.to_string();
        assert!(text.contains("does not unpack into the 1000 bytes its header says"), "{text}");
    });
}

#[test]
fn a_frame_that_does_not_come_in_time_is_dropped_alone() {
    run(async {
        let config = Config { frame_timeout: Duration::from_millis(300), ..patient() };
        let hub = Hub::listen(loopback(), &key(1), config).unwrap();
        let rogue = Rogue::call(hub.local_addr(), &key(1), &key(9)).await;
        assert_eq!(next(&hub).await, HubEvent::Joined(key(9).id()));
        let slow = rogue.payload(&header().encode(), false).await;
        // The hub stops the stream, and only the stream.
        assert!(soon(slow.stopped()).await.unwrap().is_some());
        assert_eq!(hub.statistics(key(9).id()).unwrap().frames_damaged, 1);
        let whole = payload(key(1).id(), PayloadKind::Gradient, vec![7; 1000]);
        rogue.payload(&bytes_of(&whole), true).await;
        assert_eq!(next(&hub).await, HubEvent::Frame { from: key(9).id(), frame: whole });
    });
}

#[test]
fn a_node_that_reads_no_messages_is_cut_off_and_holds_up_nobody() {
    run(async {
        let config = Config { stall_timeout: Duration::from_millis(200), ..patient() };
        let (hub, nodes) = swarm(&[2], config).await;
        let deaf = Rogue::call(hub.local_addr(), &key(1), &key(9)).await;
        assert_eq!(next(&hub).await, HubEvent::Joined(key(9).id()));
        let reason = "words ".repeat(10_000);
        let error = soon(async {
            loop {
                let message = Message::Leave { reason: reason.clone() };
                if let Err(error) = hub.send(Frame::new(key(9).id(), message)).await {
                    return error;
                }
            }
        })
        .await;
        let why = "it took no message for 200 ms".into();
        assert_eq!(error, TransportError::Misconduct { peer: key(9).id(), why });
        assert_eq!(next(&hub).await, HubEvent::Lost { peer: key(9).id(), why: error });
        assert!(deaf.refusal().await.contains("took no message"));
        hub.send(ready(key(2).id(), 3)).await.unwrap();
        assert_eq!(frame(&nodes[0]).await, ready(key(2).id(), 3));
    });
}
