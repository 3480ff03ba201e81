//! A slice of every decoder's cases, and that the harness can tell a panic.
#![allow(clippy::unwrap_used)] // a trial that cannot go on has failed

use fuzz::{Target, targets};
use std::time::Duration;

/// For each decoder.
const TIME: Duration = Duration::from_millis(50);

#[test]
fn no_decoder_panics_whatever_comes() {
    let mut cases = 0;
    for target in targets().unwrap() {
        for seed in &target.seeds {
            // A case that is thrown away at the first byte tries nothing.
            assert!((target.decode)(seed), "{}: its own input is not taken", target.name);
        }
        match target.run(0, TIME) {
            Ok(tally) => cases += tally.cases,
            Err(found) => panic!("{}: {found:?}", target.name),
        }
    }
    println!("{cases} cases");
}

#[test]
fn a_panic_is_found_and_named_by_its_number() {
    let picky = |bytes: &[u8]| {
        assert!(bytes.last() != Some(&0xff), "the last byte is 255");
        true
    };
    let target = Target { name: "picky".into(), seeds: vec![vec![1; 40]], decode: Box::new(picky) };
    let found = target.run(0, Duration::from_secs(60)).unwrap_err();
    assert_eq!((found.said.as_str(), &target.case(found.number)), ("the last byte is 255", &found.bytes));
}
