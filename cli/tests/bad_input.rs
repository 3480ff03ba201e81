//! Input that `iota` cannot use: one sentence with file, field, expected and found, exit code 2, nothing half-written.
#![allow(clippy::unwrap_used)] // a trial that cannot go on has failed

mod support;

use std::path::Path;
use support::{BPE, Place, TINY, manifest, tiny_bpe};

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
    place.refused(&with("shape.toml"), &["shape.toml: model.heads is 3, expected a divisor of model.dim"]);
    place.refused(&with("none.toml"), &["--config none.toml: cannot be read"]);
    place.refused(
        &[&with("c.toml")[..], &["--replicas", "0"]].concat(),
        &["c.toml: miners_per_stage is 0, expected 1 to 256"],
    );
    place.refused(
        &[&with("c.toml")[..], &["--replicas", "2", "--outer-momentum", "1"]].concat(),
        &["outer.nesterov.momentum is 1, expected in [0, 1)"],
    );
    place.refused(
        &[&with("c.toml")[..], &["--steps", "10", "--steps-per-merge", "4"]].concat(),
        &["--steps is 10, expected a positive multiple of --steps-per-merge, which is 4"],
    );
    place.refused(&with("broken.toml"), &["broken.toml: line 1"]);
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
fn tokenizers_vocabularies_and_texts_that_do_not_fit_are_named() {
    let place = Place::new(&tiny_bpe());
    let write = |name: &str, bytes: &[u8]| std::fs::write(place.path(name), bytes).unwrap();
    write("small.toml", b"[model]\nvocab = 100\n");
    write("large.toml", b"[model]\nvocab = 300\n[data]\ntokenizer = \"bytes\"\n");
    write("mode.toml", b"mode = \"exact8\"\n");
    write("broken.json", b"{\"version\": ");
    write("empty.txt", b"");
    let with = |more: &[&'static str]| [&["train", "--text", "text.txt"], more].concat();
    let expected = ["small.toml: model.vocab is 100, expected at least the", "ids of data.tokenizer"];
    place.refused(&with(&["--config", "small.toml", BPE[0], BPE[1]]), &expected);
    place.refused(&with(&["--config", "large.toml"]), &["large.toml: model.vocab is 300, expected 256"]);
    place.refused(&with(&["--config", "mode.toml"]), &["mode.toml", "exact8", "expected `portable`"]);
    place.refused(
        &with(&["--tokenizer", "broken.json"]),
        &["--tokenizer broken.json", "not a tokenizer.json"],
    );
    place.refused(&with(&["--tokenizer", "none.json"]), &["--tokenizer none.json"]);
    place.refused(&with(&["--tokenizer", "bpe:7"]), &["bpe of 7 ids, expected 257 to"]);
    place.refused(&["train", "--text", "empty.txt"], &["0 bytes of text in 1 files, expected at least"]);
    place.refused(&["data", "prepare", "empty.txt", "--out", "out"], &["no text: every document is empty"]);
    assert!(!place.path("out").exists());
}

#[test]
fn a_prepared_folder_that_is_none_or_was_spoilt_is_named() {
    let place = Place::new(&tiny_bpe());
    place.prepare("data");
    let train = ["train", "--config", "c.toml", "--data", "data", "--steps", "4"];
    let spoilt = |name: &str, keep: usize, parts: &[&str]| {
        let path = place.path("data").join(name);
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, &good[..keep]).unwrap();
        place.refused(&train, parts);
        // A swarm is not begun on it either.
        place.refused(&["run", "new", "--data", "data", "--folder", "new"], parts);
        assert!(!place.path("new").exists());
        std::fs::write(&path, good).unwrap();
    };
    spoilt("train.tokens", 100, &["data/train.tokens", "bytes of tokens is 84, expected"]);
    spoilt("train.tokens", 9, &["data/train.tokens", "length is 9, expected at least 16 bytes"]);
    spoilt("validation.tokens", 17, &["data/validation.tokens", "bytes of tokens is 1, expected"]);
    spoilt("tokenizer.json", 300, &["data/tokenizer.json", "expected the tokenizer.json", "found"]);
    spoilt("data.toml", 30, &["data/data.toml", "expected what `iota data prepare` writes"]);
    place.refused(&["train", "--data", "none"], &["none/data.toml: cannot be read"]);
    let both = place.iota(&["train", "--data", "data", "--text", "text.txt"]);
    assert_eq!(both.0, 2, "{}", both.1);
}

#[test]
fn weights_that_are_cut_off_or_of_another_model_are_named() {
    let place = Place::new(TINY);
    let run = place.train("a", &["--steps", "2"]);
    let (code, said) = place.iota(&["export", "--to", "hf", "--run", run.to_str().unwrap(), "--out", "hf"]);
    assert_eq!(code, 0, "{said}");
    std::fs::copy(run.join("run.toml"), place.path("run.toml")).unwrap();
    let text = std::fs::read_to_string(run.join("run.toml")).unwrap();
    std::fs::write(place.path("other.toml"), text.replace("ffn = 24", "ffn = 32")).unwrap();
    let files = [1, 2].map(|stage| format!("hf/model-0000{stage}-of-00002.safetensors"));
    let eval = |config: &str, parts: &[&str]| {
        let model = ["--weights", &files[0], &files[1], "--config", config];
        place.refused_beside(&[&["eval", "text.txt"], &model[..]].concat(), parts);
    };
    eval("other.toml", &["--weights hf/model-00001", "checkpoint metadata run: expected", "found"]);
    let path = place.path(&files[1]);
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, &good[..good.len() - 4]).unwrap();
    eval("run.toml", &["--weights hf/model-00002", "not a safetensors file"]);
    std::fs::write(&path, &good[..100]).unwrap();
    eval("run.toml", &["--weights hf/model-00002", "not a safetensors file"]);
    // Stages in the wrong order.
    std::fs::copy(place.path(&files[0]), &path).unwrap();
    eval("run.toml", &["--weights hf/model-00002", "checkpoint metadata stage: expected 1, found 0"]);
}

#[test]
fn a_run_whose_tokenizer_is_lost_or_another_is_told_so() {
    let place = Place::new(&tiny_bpe());
    let run = place.train("a", &[&BPE[..], &["--steps", "2"]].concat());
    let root = run.to_str().unwrap();
    let text = std::fs::read_to_string(run.join("run.toml")).unwrap();
    let digest = text.lines().find_map(|line| line.trim().strip_prefix("file = ")).unwrap().trim_matches('"');
    let path = run.join("objects").join(digest);
    let good = std::fs::read(&path).unwrap();
    std::fs::write(&path, &good[1..]).unwrap();
    for command in
        [&["eval", "text.txt"][..], &["generate", "--prompt", "a"], &["export", "--to", "hf", "--out", "hf"]]
    {
        place.refused_beside(
            &[command, &["--run", root]].concat(),
            &[digest, "expected the tokenizer.json", "found"],
        );
    }
    assert!(!place.path("hf").exists());
    std::fs::remove_file(&path).unwrap();
    place.refused_beside(&["generate", "--prompt", "a", "--run", root], &[digest, "cannot be read"]);
}

#[test]
fn a_value_that_is_not_finite_ends_the_run_and_spares_its_checkpoints() {
    let place = Place::new(&TINY.replace("[inner]\n", "[inner]\nlr = 1e38\nwarmup_steps = 3\n"));
    let run = place.train("a", &["--steps", "20", "--stop-at", "1"]);
    let before = manifest(&run, 1);
    let (code, said) = place.resume(&run, &[]);
    assert_eq!(code, 2, "{said}");
    let last = said.trim_end().lines().last().unwrap();
    assert!(last.contains("gave a NaN or an infinity, expected finite values; lower inner.lr"), "{said}");
    assert!(last.contains("in stage") && last.contains("epoch 0"), "{said}");
    let kept: Vec<_> = run.join("checkpoints").read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(kept, ["step-00000001"]);
    assert_eq!(manifest(&run, 1), before);
}

/// Runs iota where no file may exceed so many blocks of 512 bytes. The signal that says so is ignored, so that a write
/// fails as on a full disk.
#[cfg(unix)]
fn on_a_full_disk(place: &Place, blocks: u32, arguments: &[&str]) -> (Option<i32>, String) {
    let output = std::process::Command::new("sh")
        .args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"")])
        .arg(assert_cmd::cargo::cargo_bin("iota"))
        .args(arguments)
        .current_dir(place.folder.path())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let place = Place::new(TINY);
    let full = |arguments: &[&str]| {
        let (code, said) = on_a_full_disk(&place, 32, arguments);
        assert_eq!(code, Some(2), "{said}");
        let last = said.trim_end().lines().last().unwrap();
        assert!(last.contains("cannot be written") && last.contains("free the disk"), "{said}");
    };
    full(&["train", "--config", "c.toml", "--text", "text.txt", "--steps", "2"]);
    assert_eq!(place.path("runs").read_dir().map_or(0, |runs| runs.count()), 0);
    full(&["data", "prepare", "text.txt", "--out", "data"]);
    full(&["run", "new", "--text", "text.txt", "--folder", "new"]);
    assert!(!place.path("data").exists() && !place.path("new").exists());

    // Full once the run has begun: the last checkpoint stays, nothing of the next does, and the run goes on from it.
    let through = place.train("through", &["--steps", "4"]);
    let run = place.train("a", &["--steps", "4", "--stop-at", "2"]);
    full(&["train", "--resume", run.to_str().unwrap()]);
    let kept: Vec<_> = run.join("checkpoints").read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(kept, ["step-00000002"]);
    full(&["export", "--to", "hf", "--run", run.to_str().unwrap(), "--out", "hf"]);
    full(&["export", "--to", "gguf", "--run", run.to_str().unwrap(), "--out", "gguf"]);
    assert!(!place.path("hf").exists() && !place.path("gguf").exists());
    let (code, said) = place.resume(&run, &[]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(manifest(&run, 4), manifest(&through, 4));
}
