//! Evidence as a stranger meets it: a file that a real swarm left, and `iota verify evidence`.
#![allow(clippy::unwrap_used)] // a trial that cannot go on has failed

use assert_cmd::Command;
use std::path::{Path, PathBuf};
use std::time::Duration;
use validator::evidence::{Expected, Outcome, pack, unpack, verify};
use wire::{Chain, Finding, Key, Signed};

/// No trial waits longer than this for a command.
const DEADLINE: Duration = Duration::from_secs(180);

/// A small swarm over bytes.
const SMALL: [&str; 4] =
    ["--config", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/swarm.toml"), "--tokenizer", "bytes"];

/// What a command said and its exit code.
fn iota(arguments: &[&str]) -> (i32, String) {
    let output = Command::cargo_bin("iota").unwrap().args(arguments).timeout(DEADLINE).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
}

fn check(file: &Path, more: &[&str]) -> (i32, String) {
    iota(&[&["verify", "evidence", &*file.to_string_lossy()], more].concat())
}

/// A swarm with one miner that computes wrongly: its run's folder, the evidence, and what was said.
fn perturbed(place: &Path, victim: &str) -> (PathBuf, PathBuf, String) {
    let (text, runs) = (place.join("text.txt"), place.join("runs"));
    let words = ["the", "house", "of", "a", "miner", "stands", "near", "river", "and", "every", "night"];
    let line = (0..40_000u64).map(|i| words[(i * i % 37 % 11) as usize].to_owned() + " ");
    std::fs::write(&text, line.collect::<String>()).unwrap();
    let (text, folder) = (text.to_string_lossy(), runs.to_string_lossy());
    let lie = ["--miners-per-stage", "2", "--adversary", victim];
    let up = ["up", "--text", &text, "--runs", &folder, "--steps", "4", "--epochs", "2"];
    let (code, said) = iota(&[&up[..], &lie, &SMALL].concat());
    assert_eq!(code, 0, "{victim}: {said}");
    let only = |folder: &Path| {
        let mut entries: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.retain(|path| !path.to_string_lossy().ends_with(".tile.evidence"));
        assert_eq!(entries.len(), 1, "{entries:?}: {said}");
        entries.remove(0)
    };
    let run = only(&runs);
    let evidence = only(&run.join("evidence"));
    (run, evidence, said)
}

#[test]
fn a_real_perturbed_run_convicts_and_everything_else_is_refused() {
    for (victim, operation, field) in [
        ("step-bit@0", "step", "state"),
        ("backward-bit@2", "backward", "output"),
        ("forward-bit@1", "forward", "output"),
    ] {
        let place = tempfile::tempdir().unwrap();
        let (run, evidence, up_said) = perturbed(place.path(), victim);
        // `up` prints the commands that check it.
        let tile = evidence.with_extension("tile.evidence");
        for file in [&evidence, &tile] {
            let command = format!("iota verify evidence {}", file.display());
            assert!(up_said.contains(&command), "{up_said}");
        }
        // A banned key is not let in again, and `up` does not try.
        assert!(!up_said.contains("started again"), "{up_said}");
        let (code, said) = check(&evidence, &[]);
        assert_eq!(code, 0, "{victim}: {said}");
        for word in [
            "CONVICTED  miner",
            &format!("operation  {operation}"),
            &format!("claimed    {field}"),
            "the same",
        ] {
            assert!(said.contains(word), "{victim}: {word:?} is not in {said}");
        }
        // The same lie, narrowed down to one tile: the liar was asked over its connection, and answered.
        assert!(up_said.contains("one tile of one op convicts it: evidence "), "{victim}: {up_said}");
        let (code, said) = check(&tile, &[]);
        assert_eq!(code, 0, "{victim}: {said}");
        let op = if operation == "step" { "AdamW" } else { "encoding of a payload" };
        for word in ["CONVICTED  miner", &format!("op         {op}"), "claimed  ", "found  "] {
            assert!(said.contains(word), "{victim}: {word:?} is not in {said}");
        }
        println!("{said}");
        let (_, stage) = victim.split_once('@').unwrap();
        assert!(said.contains(&format!("of stage {stage}")), "{said}");
        let length = |path: &Path| path.metadata().unwrap().len();
        assert!(length(&tile) < length(&evidence), "{}: {}", length(&tile), length(&evidence));
        if victim == "forward-bit@1" {
            exchanges_files(&run, &evidence, &tile);
            spoil(place.path(), &run, &evidence);
        }
    }
}

/// Who was not asked during the run can be asked by files, which come to the same evidence.
fn exchanges_files(run: &Path, evidence: &Path, tile: &Path) {
    let by_messages = std::fs::read(tile).unwrap();
    std::fs::remove_file(tile).unwrap();
    let (file, key) = (evidence.to_string_lossy(), run.join("keys/miner-1.key"));
    let answer = |more: &[&str]| {
        let key = key.to_string_lossy();
        let lie = ["evidence", "answer", &file, "--key", &key, "--adversary", "forward-bit"];
        let (code, said) = iota(&[&lie[..], more].concat());
        assert_eq!(code, 0, "{said}");
    };
    let narrow = || {
        let (code, said) = iota(&["evidence", "narrow", &file]);
        assert_eq!(code, 0, "{said}");
        said
    };
    answer(&[]);
    let said = narrow();
    let wrong = said.strip_prefix("output ").and_then(|rest| rest.split_once(" is wrong")).unwrap().0;
    answer(&["--output", wrong]);
    narrow();
    assert!(std::fs::read(tile).unwrap() == by_messages, "output {wrong}");
}

/// Everything that makes this evidence none, through the binary.
fn spoil(place: &Path, run: &Path, evidence: &Path) {
    let good = std::fs::read(evidence).unwrap();
    let path = place.join("spoilt.evidence");
    let judged = |bytes: &[u8], more: &[&str]| {
        std::fs::write(&path, bytes).unwrap();
        check(&path, more)
    };
    let refused = |bytes: &[u8], more: &[&str], words: &[&str]| {
        let (code, said) = judged(bytes, more);
        assert_eq!(code, 2, "{words:?}: {said}");
        assert_eq!(said.trim().lines().count(), 1, "one sentence: {said}");
        for word in words.iter().chain(&["refused: ", "expected ", "found "]) {
            assert!(said.contains(word), "{word:?} is not in {said}");
        }
    };
    for length in [0, 3, 8, 100, good.len() / 3, good.len() / 2, good.len() - 1] {
        refused(&good[..length], &[], &[]);
    }
    let sections = u32::from_le_bytes(good[4..8].try_into().unwrap()) as usize;
    let mut begin = 8 + 48 * sections;
    for line in good[8..begin].chunks_exact(48) {
        let length = u64::from_le_bytes(line[40..].try_into().unwrap()) as usize;
        let mut edited = good.clone();
        edited[begin + length / 2] ^= 0x10;
        refused(&edited, &[], &[]);
        begin += length;
    }
    let parts = unpack(&good).unwrap();
    let objects: Vec<Vec<u8>> = parts.objects.into_values().map(|bytes| bytes.into_owned()).collect();
    let other = Key::from_seed([7; 32]);
    // Of another run, against another, by another validator than the reader knows.
    let id = other.id().to_string();
    refused(&good, &["--run", &id], &["run: ", &id]);
    refused(&good, &["--miner", &id], &["accused miner: ", &id]);
    refused(&good, &["--validator", &id], &["signer of the verdict: ", &id]);
    // Signed by somebody else.
    let mut case = parts.case.clone();
    case.order.receipts =
        case.order.receipts.iter().map(|signed| Signed::new(signed.body.clone(), &other)).collect();
    // In a window that begins an epoch the receipt that binds the state is one of them, and still its own.
    let begins = parts.case.order.receipts.first() == Some(&parts.case.order.start);
    let why = if begins { "is not the window's first" } else { "is signed by" };
    refused(&pack(&wire::to_bytes(&case), &objects).unwrap(), &[], &["receipts: ", why]);
    // A missing state.
    let kept: Vec<_> =
        objects.iter().filter(|bytes| spec::Digest::of(bytes) != parts.case.order.state.digest).collect();
    let file = pack(&wire::to_bytes(&parts.case), &kept).unwrap();
    refused(&file, &[], &["found nothing", &parts.case.order.state.digest.to_string()]);
    // The same window as an honest miner would have signed it, under the same verdict.
    let key = transport::identity::load(&run.join("keys/miner-1.key")).unwrap();
    assert_eq!(key.id(), parts.case.order.miner);
    let validator = transport::identity::load(&run.join("keys/validator.key")).unwrap();
    let (code, said) = judged(&honest(&good, &key, &validator), &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("NOT PROVEN") && said.contains(&key.id().to_string()), "{said}");
}

/// The evidence with every lie of the accused put right, one after another, and signed again by its own key; and
/// the verdict by the validator's, if what it names is another now.
fn honest(evidence: &[u8], key: &Key, validator: &Key) -> Vec<u8> {
    let mut file = evidence.to_vec();
    for _ in 0..100 {
        let report = verify(&file, None, &Expected::default()).unwrap();
        let Outcome::Convicted(conviction) = report.outcome else { return file };
        let Finding::Unequal { sequence, what, expected, .. } = conviction.finding else {
            panic!("{conviction:?}")
        };
        assert_eq!(what, "output");
        let mut parts = unpack(&file).unwrap();
        let order = &mut parts.case.order;
        // A window that begins an epoch has the receipt that binds its state as its own first.
        let begins = order.receipts.first() == Some(&order.start);
        let start = &order.start.body;
        let mut chain = match begins {
            true => Chain { next: start.sequence, last: start.previous },
            false => Chain::after(start),
        };
        for receipt in &mut order.receipts {
            let mut body = receipt.body.clone();
            body.previous = chain.last;
            if body.sequence == sequence {
                body.output = Some(expected.parse().unwrap());
            }
            chain = Chain::after(&body);
            *receipt = Signed::new(body, key);
        }
        if begins {
            order.start = order.receipts[0].clone();
            let verdict = &parts.case.verdict.body;
            let verdict = wire::Verdict { start: order.start.digest(), ..verdict.clone() };
            parts.case.verdict = Signed::new(verdict, validator);
        }
        let objects: Vec<Vec<u8>> = parts.objects.into_values().map(|bytes| bytes.into_owned()).collect();
        file = pack(&wire::to_bytes(&parts.case), &objects).unwrap();
    }
    panic!("more lies than receipts")
}

#[test]
fn what_is_no_evidence_is_said_in_one_sentence() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("x.evidence");
    let (code, said) = check(&path, &[]);
    assert!(code == 2 && said.contains("cannot be read"), "{code}: {said}");
    std::fs::write(&path, b"not evidence, but long enough for a header").unwrap();
    let (code, said) = check(&path, &[]);
    assert!(code == 2 && said.contains("magic: expected \"IEV1\""), "{code}: {said}");
    let (code, said) = check(&path, &["--run", "abc"]);
    assert!(code == 2 && said.contains("64 hexadecimal digits"), "{code}: {said}");
}
