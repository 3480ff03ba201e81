//! What the trials of `iota train` share: a small text, a tiny model, and the binary run on them.
#![allow(dead_code)] // each of them uses its part

use assert_cmd::Command;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No test waits longer than this for anything.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub const TINY: &str = "[model]\ndim = 16\nheads = 2\nkv_heads = 1\nffn = 24\ncontext = 16\nstages = [1, 1]\n\
                    [data]\ntokenizer = \"bytes\"\nsequences = 2\n[inner]\nmembers = 2\n[epoch]\ncount = 2\n";

/// The same over byte-level BPE, of which `--tokenizer` or `--data` says more.
pub fn tiny_bpe() -> String {
    TINY.replace("tokenizer = \"bytes\"\n", "")
}

pub const BPE: [&str; 2] = ["--tokenizer", "bpe:300"];

/// A folder with a text and a configuration.
pub struct Place {
    pub folder: tempfile::TempDir,
}

impl Place {
    pub fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let words = ["the", "house", "of", "a", "miner", "stands", "near", "river", "and", "every", "night"];
        let text: String =
            (0..20_000u64).map(|i| words[(i * i % 37 % 11) as usize].to_owned() + " ").collect();
        std::fs::write(folder.path().join("text.txt"), text).unwrap();
        std::fs::write(folder.path().join("c.toml"), config).unwrap();
        Self { folder }
    }

    pub fn path(&self, inside: &str) -> PathBuf {
        self.folder.path().join(inside)
    }

    /// Runs iota in the folder: exit code, and what it said.
    pub fn iota(&self, arguments: &[&str]) -> (i32, String) {
        let mut command = Command::cargo_bin("iota").unwrap();
        let output =
            command.args(arguments).current_dir(self.folder.path()).timeout(DEADLINE).output().unwrap();
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&said).into_owned())
    }

    /// Trains into the folder `runs`, and gives back the run's folder.
    pub fn train(&self, runs: &str, more: &[&str]) -> PathBuf {
        let fixed = ["train", "--config", "c.toml", "--text", "text.txt", "--runs", runs];
        let (code, said) = self.iota(&[&fixed, more].concat());
        assert_eq!(code, 0, "{said}");
        only(&self.path(runs))
    }

    /// Byte-level BPE of the text, prepared into the folder `out`.
    pub fn prepare(&self, out: &str) {
        let arguments = [&["data", "prepare", "text.txt", "--out", out], &BPE[..]].concat();
        let (code, said) = self.iota(&arguments);
        assert_eq!(code, 0, "{said}");
    }

    pub fn resume(&self, run: &Path, more: &[&str]) -> (i32, String) {
        self.iota(&[&["train", "--resume", run.to_str().unwrap()], more].concat())
    }

    /// A refusal: exit code 2 and one sentence, with nothing left in `runs`.
    pub fn refused(&self, arguments: &[&str], parts: &[&str]) {
        self.refused_beside(arguments, parts);
        let left = self.path("runs").read_dir().map_or(0, |entries| entries.count());
        assert_eq!(left, 0, "{arguments:?} left something behind");
    }

    /// A refusal where runs are there already.
    pub fn refused_beside(&self, arguments: &[&str], parts: &[&str]) {
        let (code, said) = self.iota(arguments);
        assert_eq!(code, 2, "{arguments:?}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{arguments:?}: {said}");
        for part in parts {
            assert!(said.contains(part), "{arguments:?}: `{said}` does not say `{part}`");
        }
    }
}

pub fn only(folder: &Path) -> PathBuf {
    let mut entries: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries.remove(0)
}

pub fn manifest(run: &Path, step: u32) -> Value {
    let path = run.join(format!("checkpoints/step-{step:08}/manifest.json"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The steps and losses of the metrics, without what the clock said.
pub fn losses(run: &Path) -> Vec<(u64, i64)> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| Some((line["step"].as_u64()?, line["loss_q32"].as_i64()?))).collect()
}
