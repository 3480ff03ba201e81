//! Order, priority, back-pressure, farewell.

use super::*;
use crate::reactor::LOOPBACK_PACKET_BYTES;
use std::collections::BTreeSet;

const MESSAGES: u32 = 2_000;

#[test]
fn messages_arrive_in_order_both_ways() {
    run(async {
        let (caller, called, _endpoint) = pair(Config::default()).await;
        let (first, second) = (caller.clone(), called.clone());
        let sending = async {
            for epoch in 0..MESSAGES {
                first.send(ready(key(1).id(), epoch)).await.unwrap();
                second.send(ready(key(2).id(), epoch)).await.unwrap();
            }
        };
        let receiving = async {
            for epoch in 0..MESSAGES {
                assert_eq!(frame(&called).await, ready(key(1).id(), epoch));
                assert_eq!(frame(&caller).await, ready(key(2).id(), epoch));
            }
        };
        soon(async { tokio::join!(sending, receiving) }).await;
        assert_eq!(called.statistics().frames_received, u64::from(MESSAGES));
    });
}

#[test]
fn a_farewell_comes_after_everything_else() {
    run(async {
        let (caller, called, _endpoint) = pair(Config::default()).await;
        let body = noise(3 << 20);
        for epoch in 0..10 {
            caller.send(ready(key(1).id(), epoch)).await.unwrap();
        }
        caller.send(payload(key(1).id(), PayloadKind::Activation, body)).await.unwrap();
        let closing = tokio::spawn(async move { caller.close("going home").await });
        for epoch in 0..10 {
            assert_eq!(frame(&called).await, ready(key(1).id(), epoch));
        }
        assert!(is_whole(&frame(&called).await));
        let why = end(&called).await;
        assert_eq!(why, TransportError::Closed { peer: key(2).id(), why: "going home".into() });
        assert_eq!(called.send(ready(key(2).id(), 0)).await.err(), Some(why));
        soon(closing).await.unwrap();
    });
}

#[test]
fn a_dropped_connection_is_told() {
    run(async {
        let (caller, called, _endpoint) = pair(Config::default()).await;
        drop(caller);
        let why = end(&called).await;
        assert_eq!(
            why.to_string(),
            format!("connection to {} ended: the connection was dropped", key(2).id())
        );
    });
}

#[test]
fn packing_saves_bytes_where_it_can_and_changes_none() {
    run(async {
        for packing in [true, false] {
            let (caller, called, _endpoint) = pair(Config { packing, ..Config::default() }).await;
            let floats: Vec<u8> =
                (0..200_000u32).flat_map(|i| (i as f32 * 0.1).sin().to_le_bytes()).collect();
            let sent = payload(key(1).id(), PayloadKind::Activation, floats);
            caller.send(sent.clone()).await.unwrap();
            assert_eq!(frame(&called).await, sent);
            let statistics = called.statistics();
            assert_eq!(statistics.body_bytes_received, 800_000);
            let packed = statistics.packed_bytes_received;
            assert!(if packing { packed < 760_000 } else { packed == 800_000 }, "{packed} bytes travelled");
        }
    });
}

/// Small budgets, so that a stall is near.
fn narrow() -> Config {
    Config {
        send_budget_bytes: 512 << 10,
        receive_budget_bytes: 256 << 10,
        payload_streams: 2,
        stream_window_bytes: 64 << 10,
        ..Config::default()
    }
}

#[test]
fn a_receiver_that_does_not_read_stops_the_sender_and_loses_nothing() {
    const BODY: usize = 32 << 10;
    run(async {
        let config = narrow();
        // What each side may hold, and what QUIC may hold between them.
        let bound = config.send_budget_bytes
            + config.receive_budget_bytes
            + 2 * (config.payload_streams + 1) * config.stream_window_bytes;
        let (caller, called, _endpoint) = pair(config).await;
        let mut sent = BTreeSet::new();
        loop {
            let next = payload(key(1).id(), PayloadKind::Activation, noise(BODY));
            let digest = Digest::of(&next.body);
            match tokio::time::timeout(Duration::from_millis(500), caller.send(next)).await {
                Ok(accepted) => accepted.unwrap(),
                Err(_) => break,
            }
            sent.insert(digest);
            assert!(sent.len() * BODY <= bound as usize, "{} frames are on their way", sent.len());
        }
        assert!(sent.len() * BODY >= 512 << 10, "only {} frames were accepted", sent.len());
        // Messages and heartbeats pass by while payloads wait.
        let before = called.statistics().frames_received;
        caller.send(ready(key(1).id(), 77)).await.unwrap();
        soon(until(|| called.statistics().frames_received == before + 1)).await;
        assert_eq!(frame(&called).await, ready(key(1).id(), 77));
        for _ in 0..sent.len() {
            let found = frame(&called).await;
            assert!(is_whole(&found) && sent.remove(&Digest::of(&found.body)));
        }
        assert!(sent.is_empty());
    });
}

#[test]
fn gradients_overtake_activations() {
    const QUEUED: usize = 12;
    run(async {
        let config = Config { receive_budget_bytes: 64 << 10, payload_streams: 1, ..Config::default() };
        let (caller, called, _endpoint) = pair(config).await;
        for _ in 0..QUEUED {
            let body = noise(64 << 10);
            caller.send(payload(key(1).id(), PayloadKind::Activation, body)).await.unwrap();
        }
        caller.send(payload(key(1).id(), PayloadKind::Gradient, noise(64 << 10))).await.unwrap();
        let mut place = None;
        for index in 0..=QUEUED {
            let found = frame(&called).await;
            let Message::Payload(head) = found.message else { panic!("expected a payload") };
            if head.kind == PayloadKind::Gradient {
                place = Some(index);
            }
        }
        // One waits for the caller, one for the budget, one may have its stream already.
        assert!(place.is_some_and(|place| place <= 4), "the gradient came at place {place:?} of {QUEUED}");
    });
}

#[test]
fn a_frame_beyond_its_bounds_is_not_sent() {
    run(async {
        let (caller, called, _endpoint) = pair(Config::default()).await;
        let mut frame_with_body = ready(key(1).id(), 1);
        frame_with_body.body = Bytes::from_static(b"stowaway");
        let error = caller.send(frame_with_body).await.unwrap_err();
        assert!(error.to_string().contains("body of 8 bytes, at most 0 allowed"), "{error}");
        let reason = "long ".repeat(20_000);
        let error = caller.send(Frame::new(key(1).id(), Message::Leave { reason })).await.unwrap_err();
        assert!(matches!(error, TransportError::Unsendable { .. }), "{error}");
        caller.send(ready(key(1).id(), 2)).await.unwrap();
        assert_eq!(frame(&called).await, ready(key(1).id(), 2));
    });
}

#[test]
fn packets_between_nodes_of_one_machine_are_large_both_ways() {
    run(async {
        let (caller, called, _endpoint) = pair(Config::default()).await;
        for connection in [&caller, &called] {
            let packet = || connection.link().quic.stats().path.current_mtu;
            soon(until(|| packet() > LOOPBACK_PACKET_BYTES - 100)).await;
        }
        // Enough for buffers of many packets: one that the system refuses would make them small again.
        let body = noise(16 << 20);
        for (from, to, receiver) in [(&caller, &called, 1), (&called, &caller, 2)] {
            let sending = from.send(payload(key(receiver).id(), PayloadKind::Activation, body.clone()));
            let (sent, taken) = soon(async { tokio::join!(sending, frame(to)) }).await;
            sent.unwrap();
            assert!(is_whole(&taken));
        }
        for connection in [caller, called] {
            assert!(connection.link().quic.stats().path.current_mtu > LOOPBACK_PACKET_BYTES - 100);
        }
    });
}
