//! What a node fetches from a store.

use super::direct::Peer;
use super::*;
use crate::node::Arrival;
use std::collections::VecDeque;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use wire::{ObjectRef, Presigned, Verb};

/// A store that answers nobody of itself: each connection and the object that it asks for.
async fn store() -> (SocketAddr, mpsc::Receiver<(TcpStream, u8)>) {
    let listener = TcpListener::bind(loopback()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, waiting) = mpsc::channel(64);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let asked = asked.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let number =
                    String::from_utf8(head).unwrap().split(['/', ' ']).nth(2).unwrap().parse().unwrap();
                asked.send((stream, number)).await.unwrap();
            });
        }
    });
    (address, waiting)
}

#[test]
fn a_node_fetches_eight_objects_at_a_time() {
    const OBJECTS: u8 = 24;
    run(async {
        let hub = Hub::listen(loopback(), &key(1), Config::default()).unwrap();
        let mut peer = Peer::join(&hub, 2).await;
        let (address, mut waiting) = store().await;
        for number in 0..OBJECTS {
            let object = ObjectRef::of(&[number]);
            let url = format!("http://{address}/{number}/{}", object.digest);
            let request = Presigned { verb: Verb::Get, url, headers: vec![], expires_ms: u64::MAX };
            peer.node.fetch(object, request);
        }
        let mut held = VecDeque::new();
        for done in 0..OBJECTS {
            while held.len() < usize::from(8.min(OBJECTS - done)) {
                held.push_back(soon(waiting.recv()).await.unwrap());
            }
            assert!(waiting.try_recv().is_err(), "a ninth beside eight that are under way");
            let (mut stream, number) = held.pop_front().unwrap();
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\n";
            stream.write_all(&[head.as_bytes(), &[number]].concat()).await.unwrap();
            assert_eq!(peer.next().await, Arrival::Fetched(Digest::of(&[number])));
        }
    });
}
