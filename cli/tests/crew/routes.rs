//! Direct routes between real miners: the same run as through the relay, also where they break or never come up.

use crate::harness::{Crew, LIGHT, new_run_of};
use crate::replicas::{in_one_process, make_keys};
use orchestrator::{Notice, Report};
use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A run of three stages of two miners.
fn run_of_six(folder: &Path, steps: &str) {
    new_run_of(&LIGHT, folder, &["--steps", steps, "--epochs", "2", "--miners-per-stage", "2"]);
    make_keys(folder, 6);
}

/// Bytes of payloads and parts, through the relay and past it.
fn bytes(crew: &Crew) -> (u64, u64) {
    let relayed = |notice: &Notice| match notice {
        Notice::Wire { bytes_plain, .. } => Some(*bytes_plain),
        _ => None,
    };
    let carried = |report: &Report| match report {
        Report::Carried { bytes_plain, .. } => Some(*bytes_plain),
        _ => None,
    };
    let relayed = crew.notices.iter().filter_map(relayed).next_back().unwrap_or_default();
    (relayed, crew.reports().filter_map(carried).sum())
}

#[test]
fn miners_that_reach_each_other_are_the_run_in_one_process() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("run");
    run_of_six(&folder, "6");
    let mut crew = Crew::lead_with(&folder, &["--route", "direct"], &[]);
    crew.man(6);
    assert_eq!(crew.wait_for_the_end(), in_one_process(&folder));
    let (relayed, direct) = bytes(&crew);
    assert!(relayed * 20 < direct, "{relayed} bytes through the relay, {direct} past it");
}

/// Passes datagrams between a miner and whoever calls it here, until it is cut.
struct Wire {
    /// Where it is called.
    address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Wire {
    fn to(miner: SocketAddr) -> Self {
        let outside = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let (address, cut) = (outside.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
        let is_cut = cut.clone();
        // The threads end with the trial's process. A cut wire takes datagrams and passes none.
        std::thread::spawn(move || {
            let mut insides: BTreeMap<SocketAddr, Arc<UdpSocket>> = BTreeMap::new();
            let mut datagram = [0; 1 << 16];
            while let Ok((length, caller)) = outside.recv_from(&mut datagram) {
                let inside = insides.entry(caller).or_insert_with(|| {
                    let inside = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
                    inside.connect(miner).unwrap();
                    let (from, back, cut) = (inside.clone(), outside.clone(), is_cut.clone());
                    std::thread::spawn(move || {
                        let mut datagram = [0; 1 << 16];
                        while let Ok(length) = from.recv(&mut datagram) {
                            if !cut.load(Ordering::Relaxed) {
                                let _ = back.send_to(&datagram[..length], caller);
                            }
                        }
                    });
                    inside
                });
                if !is_cut.load(Ordering::Relaxed) {
                    let _ = inside.send(&datagram[..length]);
                }
            }
        });
        Self { address, cut }
    }
}

#[test]
fn routes_that_break_or_cannot_be_taken_change_nothing() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("run");
    run_of_six(&folder, "3");
    let mut crew = Crew::lead_with(&folder, &["--route", "direct"], &[]);
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let wire = Wire::to(free);
    let mute = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Nobody can be called but one, over a wire that is cut once something came through it.
    crew.man_with(6, |name| match name {
        "miner-1" => {
            ["--listen", &free.to_string(), "--reach", &wire.address.to_string()].map(String::from).into()
        }
        "validator" => vec![],
        _ => ["--reach", &mute.to_string()].map(String::from).into(),
    });
    let carried = |notice: &Notice| matches!(notice, Notice::Report { report: Report::Carried { .. }, .. });
    crew.wait_for(|notices| notices.iter().any(carried));
    wire.cut.store(true, Ordering::Relaxed);
    assert_eq!(crew.wait_for_the_end(), in_one_process(&folder));
    crew.wait_for_word("a direct route is gone, the relay takes its place");
    let (relayed, direct) = bytes(&crew);
    assert!(relayed > direct && direct > 0, "{relayed} bytes through the relay, {direct} past it");
}

#[test]
fn ways_that_there_are_not_are_usage_errors() {
    let join = ["miner", "--join", "iota://nowhere"];
    let often = ["--reach", "203.0.113.7:4701"].repeat(5);
    for (arguments, words) in [
        (vec!["orchestrator", "--run", "nowhere", "--route", "pigeon"], "'pigeon'"),
        ([&join[..], &["--reach", "0.0.0.0:4701"]].concat(), "expected ADDRESS:PORT of one machine"),
        ([&join[..], &often].concat(), "--reach is given 5 times, expected at most 4"),
    ] {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_iota")).args(&arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
}
