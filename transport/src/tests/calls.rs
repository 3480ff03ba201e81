//! Coming up, and not coming up.

use super::*;
use quinn::crypto::rustls::QuicClientConfig;
use rustls::crypto::ring;
use std::net::UdpSocket;
use std::time::Instant;

#[test]
fn both_sides_see_the_key_of_the_other() {
    run(async {
        let (caller, called, _endpoint) = pair(Config::default()).await;
        assert_eq!(caller.peer(), key(1).id());
        assert_eq!(called.peer(), key(2).id());
        caller.send(ready(key(1).id(), 7)).await.unwrap();
        called.send(ready(key(2).id(), 8)).await.unwrap();
        assert_eq!(frame(&called).await, ready(key(1).id(), 7));
        assert_eq!(frame(&caller).await, ready(key(2).id(), 8));
    });
}

#[test]
fn another_key_than_the_expected_one_is_refused_by_name() {
    run(async {
        let endpoint = Endpoint::listen(loopback(), &key(1), Config::default()).unwrap();
        let addr = endpoint.local_addr();
        let expected = key(3).id();
        let refused = soon(Endpoint::connect(addr, expected, &key(2), Config::default())).await;
        let error = refused.err().expect("another key answered");
        assert_eq!(error, TransportError::WrongKey { addr, expected, found: key(1).id() });
        let text = error.to_string();
        assert!(text.contains(&format!("proved key {}, expected {expected}", key(1).id())), "{text}");
    });
}

#[test]
fn silence_at_the_other_end_is_an_error_by_the_deadline() {
    run(async {
        let mute = UdpSocket::bind(loopback()).unwrap();
        let config = Config { connect_timeout: Duration::from_millis(300), ..Config::default() };
        let start = Instant::now();
        let outcome = soon(Endpoint::connect(mute.local_addr().unwrap(), key(1).id(), &key(2), config)).await;
        let addr = mute.local_addr().unwrap();
        assert_eq!(outcome.err(), Some(TransportError::Unreachable { addr, timeout_ms: 300 }));
        assert!(start.elapsed() >= Duration::from_millis(300));
    });
}

#[test]
fn a_taken_port_is_named() {
    run(async {
        let holder = Endpoint::listen(loopback(), &key(1), Config::default()).unwrap();
        let addr = holder.local_addr();
        let error = Endpoint::listen(addr, &key(1), Config::default()).err().expect("the port is taken");
        assert!(matches!(&error, TransportError::Bind { addr: named, .. } if *named == addr), "{error}");
        assert!(error.to_string().starts_with(&format!("cannot listen on {addr}: ")), "{error}");
        assert!(Hub::listen(addr, &key(1), Config::default()).is_err());
    });
}

#[test]
fn a_caller_that_proves_no_key_or_greets_wrongly_is_not_let_in() {
    run(async {
        let endpoint = Endpoint::listen(loopback(), &key(1), Config::default()).unwrap();
        let addr = endpoint.local_addr();
        let config = Config::default();
        let reactor = Reactor::start(loopback(), None, &config).unwrap();

        let keyless = keyless_client();
        let refusal = match soon(reactor.endpoint.connect_with(keyless, addr, "iota").unwrap()).await {
            // TLS 1.3 lets a caller learn of its refusal only on first use.
            Ok(quic) => soon(quic.closed()).await,
            Err(refusal) => refusal,
        };
        assert!(refusal.to_string().contains("cryptographic handshake"), "{refusal}");

        let (quic_tls, _) = tls::client(&key(2), key(1).id()).unwrap();
        let mut client = quinn::ClientConfig::new(Arc::new(quic_tls));
        client.transport_config(Arc::new(transport_config(&config, 0, None)));
        let quic = soon(reactor.endpoint.connect_with(client, addr, "iota").unwrap()).await.unwrap();
        let (mut send, _recv) = soon(quic.open_bi()).await.unwrap();
        soon(send.write_all(b"GET / HTTP/1.")).await.unwrap();
        let why = soon(quic.closed()).await.to_string();
        assert!(why.contains("expected the greeting") && why.contains("GET / HTTP"), "{why}");

        // Neither of them is a connection; the next honest one is.
        let honest = call(addr, &key(1), &key(4)).await;
        assert_eq!(soon(endpoint.accept()).await.unwrap().peer(), key(4).id());
        drop(honest);
    });
}

fn keyless_client() -> quinn::ClientConfig {
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(tls::Pin::new(Some(key(1).id()))))
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"iota/1".to_vec()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
}
