//! `iota train` and what reads its folder, as a user meets them: stop and go on to the same bits, and bad input.
#![allow(clippy::unwrap_used)] // a trial that cannot go on has failed

use assert_cmd::Command;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No test waits longer than this for anything.
const DEADLINE: Duration = Duration::from_secs(60);

const TINY: &str = "[model]\ndim = 16\nheads = 2\nkv_heads = 1\nffn = 24\ncontext = 16\nstages = [1, 1]\n\
                    [data]\nsequences = 2\n[inner]\nmembers = 2\n[epoch]\ncount = 2\n";

/// A folder with a text and a configuration.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let words = ["the", "house", "of", "a", "miner", "stands", "near", "river", "and", "every", "night"];
        let text: String =
            (0..20_000u64).map(|i| words[(i * i % 37 % 11) as usize].to_owned() + " ").collect();
        std::fs::write(folder.path().join("text.txt"), text).unwrap();
        std::fs::write(folder.path().join("c.toml"), config).unwrap();
        Self { folder }
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    /// Runs iota in the folder: exit code, and what it said.
    fn iota(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::cargo_bin("iota").unwrap();
        let output =
            command.args(arguments).current_dir(self.folder.path()).timeout(DEADLINE).output().unwrap();
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
    }

    /// Trains into the folder `runs`, and gives back the run's folder.
    fn train(&self, runs: &str, more: &[&str]) -> PathBuf {
        let fixed = ["train", "--config", "c.toml", "--text", "text.txt", "--runs", runs];
        let (code, said) = self.iota(&[&fixed, more].concat());
        assert_eq!(code, 0, "{said}");
        only(&self.path(runs))
    }

    fn resume(&self, run: &Path, more: &[&str]) -> (i32, String) {
        self.iota(&[&["train", "--resume", run.to_str().unwrap()], more].concat())
    }

    /// A refusal: exit code 2 and one sentence, with nothing left in `runs`.
    fn refused(&self, arguments: &[&str], parts: &[&str]) {
        let (code, said) = self.iota(arguments);
        assert_eq!(code, 2, "{arguments:?}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{arguments:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: `{said}` does not say `{part}`");
        }
        let left = self.path("runs").read_dir().map_or(0, |entries| entries.count());
        assert_eq!(left, 0, "{arguments:?} left something behind");
    }
}

fn only(folder: &Path) -> PathBuf {
    let mut entries: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries.remove(0)
}

fn manifest(run: &Path, step: u32) -> Value {
    let path = run.join(format!("checkpoints/step-{step:08}/manifest.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The steps and losses of the metrics, without what the clock said.
fn losses(run: &Path) -> Vec<(u64, i64)> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| Some((line["step"].as_u64()?, line["loss_q32"].as_i64()?))).collect()
}

#[test]
fn twenty_steps_are_ten_and_ten_more_whatever_the_threads() {
    for outer in ["", "[outer.nesterov]\nlr = 0.7\nmomentum = 0.9\nbits = 8\n"] {
        let place = Place::new(&format!("boundary = \"int8\"\n{TINY}{outer}"));
        let through = place.train("through", &["--steps", "20"]);
        // In the middle of the first epoch, so that the anchor is a file of its own; then near the end.
        let halves = place.train("halves", &["--steps", "20", "--stop-at", "7", "--threads", "1"]);
        let (code, said) = place.resume(&halves, &["--stop-at", "13", "--threads", "3"]);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("iota train --resume"), "{said}");
        let (code, said) = place.resume(&halves, &[]);
        assert_eq!(code, 0, "{said}");
        assert_eq!(manifest(&halves, 20), manifest(&through, 20));
        assert_eq!(losses(&halves), losses(&through));
        assert_eq!(losses(&halves).len(), 20);
        assert!(losses(&through)[19].1 < losses(&through)[0].1, "the loss falls");
        for file in ["loss.svg", "sample.txt", "run.toml"] {
            let read = |run: &Path| std::fs::read(run.join(file)).unwrap();
            assert_eq!(read(&halves), read(&through), "{file}");
        }
        // Once more is no more.
        assert_eq!(place.resume(&halves, &[]).0, 0);
        assert_eq!(manifest(&halves, 20), manifest(&through, 20));
    }
}

#[test]
fn every_simd_path_gives_the_same_bits() {
    let place = Place::new(TINY);
    let through = place.train("through", &["--steps", "6"]);
    let (_, said) = place.iota(&["doctor"]);
    for path in ["portable", "avx2", "avx512"] {
        let known = said.lines().find(|line| line.starts_with("SIMD path")).unwrap().to_lowercase();
        if !known.contains(path) {
            println!("not run: this CPU has no {path}");
            continue;
        }
        // Begun on the best path, ended on this one.
        let run = place.train(path, &["--steps", "6", "--stop-at", "2"]);
        let (code, said) = place.resume(&run, &["--simd", path]);
        assert_eq!(code, 0, "{said}");
        assert_eq!(manifest(&run, 6), manifest(&through, 6), "{path}");
    }
}

/// The bytes of every file below a folder.
fn files(folder: &Path) -> Vec<Vec<u8>> {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let inside =
        |path: PathBuf| if path.is_dir() { files(&path) } else { vec![std::fs::read(path).unwrap()] };
    entries.flat_map(inside).collect()
}

#[test]
fn a_live_swarm_makes_the_same_weights() {
    let place = Place::new(TINY);
    let arguments =
        ["up", "--text", "text.txt", "--runs", "swarm", "--steps", "5", "--epochs", "2", "--audits", "0"];
    let (code, said) = place.iota(&arguments);
    assert_eq!(code, 0, "{said}");
    let swarm = only(&place.path("swarm"));
    std::fs::copy(swarm.join("run.toml"), place.path("c.toml")).unwrap();
    let alone = manifest(&place.train("alone", &[]), 10);
    let digests: Vec<Vec<u8>> = alone["stages"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|stage| ["weights", "momentum"].map(|key| bytes_of(stage[key].as_str().unwrap())))
        .collect();
    assert_eq!(digests.len(), 6);
    // The last manifest in the swarm's store names exactly these.
    let names_all = |file: &Vec<u8>| digests.iter().all(|digest| file.windows(32).any(|w| w == digest));
    assert!(files(&swarm.join("bucket")).iter().any(names_all), "no manifest names {alone}");
}

fn bytes_of(hexadecimal: &str) -> Vec<u8> {
    (0..hexadecimal.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn a_finished_run_toml_makes_the_same_run_again() {
    let place = Place::new(TINY);
    let first = place.train("first", &["--steps", "4"]);
    std::fs::copy(first.join("run.toml"), place.path("c.toml")).unwrap();
    let again = place.train("again", &[]);
    assert_eq!(manifest(&again, 4), manifest(&first, 4));
    // Of another text it makes none.
    std::fs::write(place.path("text.txt"), "another text, ".repeat(10_000)).unwrap();
    let arguments = ["train", "--config", "c.toml", "--text", "text.txt"];
    place.refused(&arguments, &["c.toml: data.train is", "the text gives"]);
}

#[cfg(unix)]
mod signals {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;
    use std::time::Instant;

    /// Starts a run that would last for hours, waits until it steps, sends `signal`; the run's folder and exit code.
    fn interrupted(place: &Place, signal: &str, more: &[&str]) -> (PathBuf, Option<i32>) {
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("iota"))
            .args(["train", "--config", "c.toml", "--text", "text.txt", "--steps", "100000000"])
            .args(more)
            .current_dir(place.folder.path())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("nats")), "it ended before it stepped");
        let status = std::process::Command::new("kill").args([signal, &child.id().to_string()]).status();
        assert!(status.unwrap().success());
        let began = Instant::now();
        let code = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status.code();
            }
            assert!(began.elapsed() < DEADLINE, "it does not end");
            std::thread::yield_now();
        };
        (only(&place.path("runs")), code)
    }

    #[test]
    fn control_c_ends_the_step_and_leaves_a_checkpoint_to_go_on_from() {
        let place = Place::new(TINY);
        let (run, code) = interrupted(&place, "-INT", &[]);
        assert_eq!(code, Some(130));
        let done = losses(&run).len() as u64;
        assert!(manifest(&run, done as u32)["epoch"].is_u64());
        let until = (done + 3).to_string();
        let (code, said) = place.resume(&run, &["--stop-at", &until]);
        assert_eq!(code, 0, "{said}");
        let steps: Vec<u64> = losses(&run).iter().map(|(step, _)| *step).collect();
        assert_eq!(steps, (1..=done + 3).collect::<Vec<_>>());
    }

    #[test]
    fn a_killed_run_goes_on_from_its_last_checkpoint() {
        let place = Place::new(TINY);
        // A step-3 checkpoint, then a resumed process that is killed without another.
        let (run, _) = interrupted(&place, "-INT", &["--stop-at", "3"]);
        let before = losses(&run);
        let root = run.to_str().unwrap();
        let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("iota"))
            .args(["train", "--resume", root])
            .current_dir(place.folder.path())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("nats")));
        child.kill().unwrap();
        child.wait().unwrap();
        let until = (before.len() + 2).to_string();
        let (code, said) = place.resume(&run, &["--stop-at", &until]);
        assert_eq!(code, 0, "{said}");
        assert_eq!(losses(&run)[..before.len()], before);
        assert_eq!(losses(&run).len(), before.len() + 2, "lines beyond the checkpoint are dropped");
    }

    #[test]
    fn a_full_disk_leaves_nothing_half_written() {
        let place = Place::new(TINY);
        // A file may not exceed 16 KiB; the signal that says so is ignored, so that the write fails as on a full disk.
        let script =
            "trap '' XFSZ; ulimit -f 32; exec \"$0\" train --config c.toml --text text.txt --steps 2";
        let output = std::process::Command::new("sh")
            .args(["-c", script])
            .arg(assert_cmd::cargo::cargo_bin("iota"))
            .current_dir(place.folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("cannot be written") && said.contains("free the disk"), "{said}");
        assert_eq!(place.path("runs").read_dir().map_or(0, |runs| runs.count()), 0);
    }
}

#[test]
fn input_that_cannot_be_used_gets_one_sentence() {
    let place = Place::new(TINY);
    let write = |name: &str, bytes: &[u8]| std::fs::write(place.path(name), bytes).unwrap();
    write("unknown.toml", b"[model]\ndimm = 8\n");
    write("typed.toml", b"[inner]\nlr = \"fast\"\n");
    write("shape.toml", b"[model]\nheads = 3\n");
    write("broken.toml", b"[model\n");
    write("binary.txt", b"abc\xff");
    write("short.txt", b"too short");
    let with = |config: &'static str| ["train", "--config", config, "--text", "text.txt"];
    place.refused(
        &with("unknown.toml"),
        &["unknown.toml: unknown key `model.dimm`", "did you mean `model.dim`?"],
    );
    place.refused(
        &with("typed.toml"),
        &["typed.toml: inner.lr is \"fast\"", "expected a value of type float"],
    );
    place.refused(&with("shape.toml"), &["model.heads is 3, expected a divisor of model.dim"]);
    place.refused(&with("broken.toml"), &["broken.toml: line 1"]);
    place.refused(&with("none.toml"), &["--config none.toml: cannot be read"]);
    place.refused(&["train", "--text", "binary.txt"], &["binary.txt: not UTF-8 text (byte 3)"]);
    place.refused(&["train", "--text", "short.txt"], &["9 bytes of text in 1 files, expected at least"]);
    place.refused(&["train", "--resume", "none"], &["none/run.toml: cannot be read"]);
    let stages = ["train", "--config", "c.toml", "--text", "text.txt", "--stages", "3"];
    place.refused(&stages, &["--stages is 3, expected 1 to 2"]);
    let steps = ["train", "--config", "c.toml", "--text", "text.txt", "--steps", "3"];
    place.refused(&steps, &["--steps is 3, expected a positive multiple of epoch.count, which is 2"]);
}

#[test]
fn a_spoilt_checkpoint_is_named_with_both_digests() {
    let place = Place::new(TINY);
    let run = place.train("a", &["--steps", "4", "--stop-at", "2"]);
    let checkpoint = run.join("checkpoints/step-00000002");
    let refusal = |run: &Path| {
        let (code, said) = place.resume(run, &[]);
        assert_eq!(code, 2, "{said}");
        said
    };
    let state = checkpoint.join("state-1.safetensors");
    let good = std::fs::read(&state).unwrap();
    let recorded = manifest(&run, 2)["stages"][1]["state"].as_str().unwrap().to_owned();

    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    std::fs::write(&state, flipped).unwrap();
    let said = refusal(&run);
    assert!(said.contains("state-1.safetensors: its BLAKE3 is") && said.contains(&recorded), "{said}");
    std::fs::remove_file(&state).unwrap();
    assert!(refusal(&run).contains("lacks state-1.safetensors"));
    std::fs::write(&state, &good).unwrap();

    // A checkpoint of another run: its digests are right, its run is not.
    let other = place.train("b", &["--steps", "4", "--stop-at", "2", "--seed", "9"]);
    let foreign = other.join("checkpoints/step-00000002");
    std::fs::remove_dir_all(&checkpoint).unwrap();
    std::fs::rename(&foreign, &checkpoint).unwrap();
    assert!(refusal(&run).contains("belongs to run"));
    assert!(refusal(&other).contains("holds no checkpoint"));
    std::fs::write(checkpoint.join("manifest.json"), b"{}").unwrap();
    assert!(refusal(&run).contains("not a checkpoint's manifest"));

    // A token shard that is not what run.toml says.
    let text = std::fs::read_to_string(run.join("run.toml")).unwrap();
    let digest = text.lines().find_map(|line| line.strip_prefix("train = ")).unwrap().trim_matches('"');
    let shard = run.join("objects").join(digest);
    let mut bytes = std::fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    let said = refusal(&run);
    assert!(said.contains("its BLAKE3 is") && said.contains(&format!("expected {digest}")), "{said}");
}

#[test]
fn a_trained_model_is_judged_and_writes() {
    let place = Place::new(TINY);
    let run = place.train("a", &["--steps", "40"]);
    let run = run.to_str().unwrap();
    let (code, said) = place.iota(&["eval", "--run", run, "text.txt", "--dump-logits", "logits.json"]);
    assert_eq!(code, 0, "{said}");
    let dump: Value = serde_json::from_slice(&std::fs::read(place.path("logits.json")).unwrap()).unwrap();
    let loss = dump["loss"].as_f64().unwrap();
    assert!(
        said.contains(&format!("{loss:.4} nats per token, {:.4} bits per byte", loss / 2f64.ln())),
        "{said}"
    );
    assert!(loss < 256f64.ln(), "40 steps taught nothing: {loss}");
    assert_eq!(dump["token_ids"].as_array().unwrap().len(), 16);
    assert_eq!(dump["last_logits"].as_array().unwrap().len(), 256);

    let write = |seed: &str, temperature: &str| {
        let more = ["--prompt", "the ", "--tokens", "30", "--seed", seed, "--temperature", temperature];
        let (code, said) = place.iota(&[&["generate", "--run", run], &more[..]].concat());
        assert_eq!(code, 0, "{said}");
        assert!(said.starts_with("the "), "{said}");
        said
    };
    assert_eq!(write("1", "1"), write("1", "1"));
    assert_ne!(write("1", "1"), write("2", "1"));
    assert_eq!(write("1", "0"), write("2", "0"), "without temperature there is no chance");
    // The likeliest token is the one with the highest logit.
    let prompt = dump["prompt"].as_str().unwrap();
    let logits: Vec<f64> =
        dump["last_logits"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    let best = (0..256).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u8;
    let more = ["--prompt", prompt, "--tokens", "1", "--temperature", "0"];
    let (_, said) = place.iota(&[&["generate", "--run", run], &more[..]].concat());
    assert_eq!(said.trim_end_matches('\n').as_bytes(), [prompt.as_bytes(), &[best]].concat());

    std::fs::write(place.path("short.txt"), "short").unwrap();
    place.refused(&["eval", "--run", run, "short.txt"], &["short.txt: 5 tokens, expected more than"]);
    let hot = ["generate", "--run", run, "--prompt", "a", "--temperature", "-1"];
    place.refused(&hot, &["--temperature is -1, expected 0 or more"]);
}

#[test]
fn the_doctor_finds_that_this_machine_keeps_the_arithmetic() {
    let place = Place::new(TINY);
    let (code, said) = place.iota(&["doctor"]);
    assert_eq!(code, 0, "{said}");
    for part in ["cores", "SIMD path", "GFLOP/s", "CUDA driver", "NVRTC", "keeps the arithmetic: 30 ops"] {
        assert!(said.contains(part), "`{said}` does not say `{part}`");
    }
}
