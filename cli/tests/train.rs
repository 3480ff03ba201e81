//! `iota train` and what reads its folder, as a user meets them: stop and go on to the same bits.
#![allow(clippy::unwrap_used)] // a trial that cannot go on has failed

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{BPE, DEADLINE, Place, TINY, losses, manifest, only, tiny_bpe};

#[test]
fn twenty_steps_are_ten_and_ten_more_whatever_the_threads() {
    for outer in ["", "[outer.nesterov]\nlr = 0.7\nmomentum = 0.9\nbits = 8\n"] {
        let place = Place::new(&format!("boundary = \"int8\"\n{TINY}{outer}"));
        let staleness = if outer.is_empty() { "0" } else { "1" };
        let length = ["--steps", "20", "--staleness", staleness];
        let through = place.train("through", &length);
        // In the middle of the first epoch, so that the anchor is a file of its own, and of a window, so that stale weights are; then
        // near the end.
        let halves = place.train("halves", &[&length[..], &["--stop-at", "7", "--threads", "1"]].concat());
        let stale = manifest(&halves, 7)["stages"][0].get("stale").is_some();
        assert_eq!(stale, !outer.is_empty(), "windows of three steps: the eighth is stale, if any is");
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
fn every_simd_path_gives_the_same_bits_of_bytes_and_of_bpe() {
    let bytes = Place::new(TINY);
    let (_, said) = bytes.iota(&["doctor"]);
    every_simd_path(&bytes, &[], &said);
    every_simd_path(&Place::new(&tiny_bpe()), &BPE, &said);
}

fn every_simd_path(place: &Place, source: &[&str], said: &str) {
    let through = place.train("through", &[source, &["--steps", "6", "--threads", "2"]].concat());
    for path in ["portable", "avx2", "avx512"] {
        let known = said.lines().find(|line| line.starts_with("SIMD path")).unwrap().to_lowercase();
        if !known.contains(path) {
            println!("not run: this CPU has no {path}");
            continue;
        }
        // Begun on the best path, ended on this one.
        let begun = [source, &["--steps", "6", "--stop-at", "2", "--threads", "1"]].concat();
        let run = place.train(path, &begun);
        let (code, said) = place.resume(&run, &["--simd", path, "--threads", "1"]);
        assert_eq!(code, 0, "{said}");
        assert_eq!(manifest(&run, 6), manifest(&through, 6), "{path}");
        assert_eq!(losses(&run), losses(&through), "{path}");
    }
}

/// The bytes of every file below a folder.
#[test]
fn replicas_stop_and_go_on_to_the_same_merged_weights() {
    let place = Place::new(TINY);
    let more = ["--replicas", "2", "--steps", "6", "--steps-per-merge", "3", "--outer-momentum", "0.3"];
    let through = place.train("a", &more);
    let stopped = place.train("b", &[&more[..], &["--stop-at", "4"]].concat());
    assert_eq!(place.resume(&stopped, &[]).0, 0);
    let end = manifest(&through, 6);
    assert_eq!(end, manifest(&stopped, 6));
    let weights: Vec<_> = end["stages"].as_array().unwrap().iter().map(|stage| &stage["weights"]).collect();
    assert_eq!(weights.len(), 4, "two stages of two replicas");
    assert_eq!(weights[..2], weights[2..], "both have the merged weights");
    let alone = place.train("c", &["--steps", "6"]);
    assert_ne!(manifest(&alone, 6)["stages"][0]["weights"], *weights[0]);
}

fn files(folder: &Path) -> Vec<Vec<u8>> {
    let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let inside =
        |path: PathBuf| if path.is_dir() { files(&path) } else { vec![std::fs::read(path).unwrap()] };
    entries.flat_map(inside).collect()
}

#[test]
fn a_live_swarm_makes_the_same_weights() {
    the_weights_of_a_swarm(&Place::new(TINY), &["--text", "text.txt", "--tokenizer", "bytes"]);
}

#[test]
fn a_live_swarm_over_prepared_bpe_makes_the_same_weights() {
    let place = Place::new(TINY);
    place.prepare("data");
    the_weights_of_a_swarm(&place, &["--data", "data"]);
}

fn the_weights_of_a_swarm(place: &Place, source: &[&str]) {
    let small = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/swarm.toml");
    let fixed =
        ["up", "--config", small, "--runs", "swarm", "--steps", "5", "--epochs", "2", "--audits", "0"];
    let (code, said) = place.iota(&[&fixed, source].concat());
    assert_eq!(code, 0, "{said}");
    let swarm = only(&place.path("swarm"));
    std::fs::copy(swarm.join("run.toml"), place.path("c.toml")).unwrap();
    let (code, said) = place.iota(&[&["train", "--config", "c.toml", "--runs", "alone"], source].concat());
    assert_eq!(code, 0, "{said}");
    let alone = manifest(&only(&place.path("alone")), 10);
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
    // And the swarm's folder is exported with its tokenizer.
    let (code, said) = place.iota(&["export", "--to", "hf", "--run", swarm.to_str().unwrap(), "--out", "hf"]);
    assert_eq!(code, 0, "{said}");
    assert!(place.path("hf/tokenizer.json").is_file());
}

fn bytes_of(hexadecimal: &str) -> Vec<u8> {
    (0..hexadecimal.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hexadecimal[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn a_prepared_folder_is_the_text_it_was_made_of() {
    let place = Place::new(&tiny_bpe());
    place.prepare("data");
    let of_text = place.train("text", &[&BPE[..], &["--steps", "6"]].concat());
    let of_folder = |runs: &str, more: &[&str]| {
        let fixed = ["train", "--config", "c.toml", "--data", "data", "--runs", runs, "--steps", "6"];
        let (code, said) = place.iota(&[&fixed, more].concat());
        assert_eq!(code, 0, "{said}");
        only(&place.path(runs))
    };
    let whole = of_folder("whole", &[]);
    assert_eq!(manifest(&whole, 6), manifest(&of_text, 6));
    let halves = of_folder("halves", &["--stop-at", "3"]);
    assert_eq!(place.resume(&halves, &[]).0, 0);
    assert_eq!(manifest(&halves, 6), manifest(&whole, 6));
    // The tokenizer given as a file, and the finished run.toml as a configuration.
    let file = place.train("file", &["--tokenizer", "data/tokenizer.json", "--steps", "6"]);
    assert_eq!(manifest(&file, 6), manifest(&whole, 6));
    std::fs::copy(whole.join("run.toml"), place.path("c.toml")).unwrap();
    assert_eq!(manifest(&place.train("again", &[]), 6), manifest(&whole, 6));
}

#[test]
fn a_model_over_bpe_is_judged_in_bytes_and_writes() {
    let place = Place::new(&tiny_bpe());
    let run = place.train("a", &[&BPE[..], &["--steps", "40"]].concat());
    // What was held out is a tail of the one document: judged as a file, nearly the same windows give the same figures.
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    let (nats, bits) = (last["held_out"].as_f64().unwrap(), last["bits_per_byte"].as_f64().unwrap());
    let (tokens, bytes) = (last["tokens"].as_f64().unwrap(), last["bytes"].as_f64().unwrap());
    assert!((bits - nats * tokens / bytes / 2f64.ln()).abs() < 1e-12);
    let text = std::fs::read_to_string(place.path("text.txt")).unwrap();
    let tail = &text[text.len() - text.len() / 20..];
    assert!(bytes > 0.98 * tail.len() as f64 && bytes <= tail.len() as f64, "{bytes} of {}", tail.len());
    assert!(tokens < 0.6 * bytes, "{tokens} tokens are no BPE");
    std::fs::write(place.path("tail.txt"), tail).unwrap();
    let root = run.to_str().unwrap();
    let (code, said) = place.iota(&["eval", "--run", root, "tail.txt"]);
    assert_eq!(code, 0, "{said}");
    let said_bits: f64 =
        said.split(" nats per token, ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((said_bits - bits).abs() < 0.02, "{said_bits} and {bits}");

    let more = ["--prompt", "the house ", "--tokens", "30", "--seed", "3"];
    let write = || place.iota(&[&["generate", "--run", root], &more[..]].concat());
    let (code, said) = write();
    assert_eq!(code, 0, "{said}");
    assert!(said.starts_with("the house ") && said.len() > 40, "{said}");
    assert_eq!(write().1, said);

    // The same model from its files alone.
    let (code, said) = place.iota(&["export", "--to", "hf", "--run", root, "--out", "hf"]);
    assert_eq!(code, 0, "{said}");
    let config = run.join("run.toml");
    let weights = ["hf/model-00001-of-00002.safetensors", "hf/model-00002-of-00002.safetensors"];
    let files = ["--weights", weights[0], weights[1], "--config", config.to_str().unwrap()];
    let (code, alone) =
        place.iota(&[&["eval", "tail.txt", "--tokenizer", "hf/tokenizer.json"], &files[..]].concat());
    assert_eq!(code, 0, "{alone}");
    assert!(alone.contains(&format!("{said_bits:.4} bits per byte")), "{alone}");
    place.refused(&[&["eval", "tail.txt"], &files[..]].concat(), &["data.tokenizer is", "--tokenizer"]);
    let (code, said) = place.iota(&["export", "--to", "gguf", "--run", root, "--out", "gguf"]);
    assert_eq!(code, 0, "{said}");
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
    let parts =
        ["cores", "SIMD path", "FMA peak", "on one thread", "GFLOP/s on all", "% of that", "bandwidth"];
    for part in parts.into_iter().chain(["CUDA driver", "NVRTC", "keeps the arithmetic: 32 ops"]) {
        assert!(said.contains(part), "`{said}` does not say `{part}`");
    }
}
