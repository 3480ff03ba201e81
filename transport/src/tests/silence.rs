//! Peers that stop, go on, and die: processes of their own, stopped by the system.

use super::*;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

const HUB: &str = "IOTA_TEST_SILENCE_HUB";
const LISTENER: &str = "IOTA_TEST_SILENCE_LISTENER";

/// Not a test but the peer that the tests below start: this same program, told by the environment whom to
/// call. It talks until it is killed.
#[test]
fn peer_process() {
    let Ok(addr) = std::env::var(HUB) else { return };
    run(async {
        let connection = call(addr.parse().unwrap(), &key(1), &key(2)).await;
        end(&connection).await;
    });
}

/// The same for who is called: it listens where the environment says until it is killed.
#[test]
fn listening_process() {
    let Ok(addr) = std::env::var(LISTENER) else { return };
    run(async {
        let endpoint = Endpoint::listen(addr.parse().unwrap(), &key(1), Config::default()).unwrap();
        let mut connections = Vec::new();
        while let Some(connection) = endpoint.accept().await {
            connections.push(connection);
        }
    });
}

struct Peer(Child);

impl Peer {
    fn start(addr: SocketAddr) -> Self {
        Self::spawn("peer_process", HUB, addr)
    }

    fn listen(addr: SocketAddr) -> Self {
        Self::spawn("listening_process", LISTENER, addr)
    }

    fn spawn(name: &str, variable: &str, addr: SocketAddr) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        command.args(["--exact", &format!("tests::silence::{name}")]).env(variable, addr.to_string());
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.0.id().to_string()).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
#[cfg(unix)]
fn a_silent_peer_is_suspected_heard_again_suspected_and_lost() {
    run(async {
        let peer = key(2).id();
        let config = Config { lost_after: Duration::from_millis(2500), ..Config::default() };
        let hub = Hub::listen(loopback(), &key(1), config).unwrap();
        let process = Peer::start(hub.local_addr());
        assert_eq!(next(&hub).await, HubEvent::Joined(peer));

        process.signal("STOP");
        let stopped = Instant::now();
        assert_eq!(next(&hub).await, HubEvent::Suspected(peer));
        let suspected_after = stopped.elapsed();
        assert!(suspected_after < Duration::from_secs(1), "suspected after {suspected_after:?}");
        process.signal("CONT");
        assert_eq!(next(&hub).await, HubEvent::Recovered(peer));

        process.signal("KILL");
        let killed = Instant::now();
        assert_eq!(next(&hub).await, HubEvent::Suspected(peer));
        let suspected_after = killed.elapsed();
        assert!(suspected_after < Duration::from_secs(1), "suspected after {suspected_after:?}");
        match next(&hub).await {
            HubEvent::Lost { peer: lost, why: TransportError::Silent { silent_ms, .. } } => {
                assert_eq!(lost, peer);
                assert!((2500..3500).contains(&silent_ms), "lost after {silent_ms} ms");
            }
            other => panic!("expected the peer lost by silence, found {other:?}"),
        }
        assert!(killed.elapsed() < Duration::from_secs(4), "lost after {:?}", killed.elapsed());
        assert!(hub.peers().is_empty());
    });
}

#[test]
fn compute_on_every_core_and_on_the_callers_own_thread_raises_no_suspicion() {
    run(async {
        let (hub, nodes) = swarm(&[2], Config::default()).await;
        let until = Instant::now() + Duration::from_millis(2500);
        let compute = move || while Instant::now() < until {};
        let cores = std::thread::available_parallelism().unwrap().get();
        let busy: Vec<_> = (0..cores).map(|_| std::thread::spawn(compute)).collect();
        // The caller's runtime has one thread, and this blocks it.
        compute();
        busy.into_iter().for_each(|thread| thread.join().unwrap());
        nodes[0].send(ready(key(1).id(), 1)).await.unwrap();
        let frame = ready(key(1).id(), 1);
        assert_eq!(next(&hub).await, HubEvent::Frame { from: key(2).id(), frame });
        hub.send(ready(key(2).id(), 2)).await.unwrap();
        assert_eq!(soon(nodes[0].recv()).await, Ok(Received::Frame(ready(key(2).id(), 2))));
    });
}

#[test]
fn a_listener_started_again_ends_the_connections_of_the_one_before() {
    run(async {
        let addr = std::net::UdpSocket::bind(loopback()).unwrap().local_addr().unwrap();
        let first = Peer::listen(addr);
        let connection = call(addr, &key(1), &key(2)).await;
        first.signal("KILL");
        drop(first);
        let _second = Peer::listen(addr);
        let began = Instant::now();
        let why = end(&connection).await;
        let patience = Config::default().lost_after;
        assert!(began.elapsed() < patience / 2, "{why} after {:?}", began.elapsed());
    });
}
