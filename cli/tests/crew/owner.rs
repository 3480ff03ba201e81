//! What a run's owner does beside the orchestrator: inviting, and going back.

use crate::harness::{Crew, new_run};
use crate::replicas::{in_one_process, make_keys};
use crate::support::Place;
use orchestrator::{Notice, Report};
use std::time::{Duration, SystemTime};

#[test]
fn the_owner_invites_and_takes_a_run_back_while_it_is_led_and_while_it_is_not() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("run");
    new_run(&folder, &["--steps", "4", "--epochs", "3"]);
    make_keys(&folder, 3);
    let mut crew = Crew::lead(&folder);

    let (code, late) = crew.own("invite", &["--role", "miner", "--expires", "1s"]);
    assert_eq!(code, 0, "{late}");
    let made = SystemTime::now();
    let (code, good) = crew.own("invite", &["--expires", "1h"]);
    assert_eq!(code, 0, "{good}");
    crew.invite_with(late.clone());
    crew.start_node("validator", "other");
    let (code, said) = crew.wait_for_exit("other");
    assert!(code == 2 && said.contains("the invitation is for a miner"), "{code}: {said}");
    let expired = made + Duration::from_secs(1);
    while SystemTime::now() <= expired {
        std::thread::sleep(Duration::from_millis(10));
    }
    crew.start_node("miner", "late");
    let (code, said) = crew.wait_for_exit("late");
    assert!(code == 2 && said.contains("the invitation has expired"), "{code}: {said}");
    crew.invite_with(good);
    crew.man(3);

    let stable = |notices: &[Notice], epoch: u32| {
        let at = |n: &&Notice| matches!(n, Notice::Report { report: Report::Stable { epoch: e }, .. } if *e == epoch);
        notices.iter().filter(at).count()
    };
    let back = |notices: &[Notice]| {
        let at = |n: &&Notice| matches!(n, Notice::Report { report: Report::RolledBack { .. }, .. });
        notices.iter().filter(at).count()
    };
    crew.wait_for(|notices| stable(notices, 0) == 1);
    let (code, said) = crew.own("rollback", &["--to", "9"]);
    assert!(code == 2 && said.contains("the opening of epoch 9 is not stable"), "{code}: {said}");
    let (code, said) = crew.own("rollback", &["--to", "0"]);
    assert_eq!((code, &*said), (0, "everybody goes back to the opening of epoch 0"));
    crew.wait_for(|notices| back(notices) == 1);
    crew.wait_for(|notices| stable(notices, 0) == 2);
    crew.kill("orchestrator");
    let (code, said) = crew.own("rollback", &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("; lead it again with `iota orchestrator`"), "{said}");
    crew.lead_again();
    let (found, expected) = (crew.wait_for_the_end(), in_one_process(&crew.folder));
    assert_eq!(found.last(), expected.last(), "whoever goes back comes to the same bits");
    // What was done twice is paid once.
    let ledger = std::fs::read(crew.folder.join("ledger")).unwrap();
    let (ledger, _) = credit::Ledger::read(&ledger).unwrap();
    let epochs: Vec<u32> = ledger.entries().iter().map(|entry| entry.body.epoch).collect();
    assert_eq!(epochs, [0, 1, 2]);
    let (code, said) = crew.own("rollback", &[]);
    assert!(code == 2 && said.contains("the run ends where epoch 3 would open"), "{code}: {said}");
}

#[test]
fn what_an_owner_cannot_have_is_said_in_one_sentence() {
    let place = Place::new("");
    place.refused_beside(&["invite", "none"], &["none is no run folder"]);
    place.refused_beside(&["rollback", "none"], &["none is no run folder"]);
    let run = place.path("run");
    new_run(&run, &["--steps", "4", "--epochs", "1"]);
    place.refused_beside(&["invite", "run"], &["this run has not been led yet", "--address HOST:PORT"]);
    let invite = |address| ["invite", "run", "--address", address];
    place.refused_beside(&invite("here"), &["the place: expected host:port, found \"here\""]);
    place.refused_beside(&invite("0.0.0.0:1"), &["0.0.0.0:1 stands for every address"]);
    place.refused_beside(&["rollback", "run"], &["this run has not begun"]);
    let (code, said) = place.iota(&invite("swarm.example.org:4433"));
    assert!(code == 0 && said.starts_with("iota://swarm.example.org:4433/"), "{code}: {said}");
}
