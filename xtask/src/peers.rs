//! What others make of what we write: PyTorch's logits of an export, the tensors that PyPI's `gguf` reads, the numbers that
//! TensorBoard reads.
//!
//! The Python packages go to `target/peers`, through pip; where they cannot be had, the comparison is "not run".

use crate::{cargo, root, target_dir};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// PyTorch alone: what its wheel names besides is CUDA, gigabytes that the CPU side never calls.
const TORCH: &[&str] = &["--no-deps", "torch"];
/// What `transformers` and PyTorch's Python side need.
const TRANSFORMERS: &[&str] = &["transformers", "sympy", "networkx", "jinja2", "fsspec", "typing-extensions"];
const GGUF: &[&str] = &["gguf", "safetensors"];
const TENSORBOARD: &[&str] = &["tensorboard"];

/// A model: how its tokens are made, and what of its configuration is not the default.
struct Subject {
    name: &'static str,
    tokenizer: &'static str,
    config: &'static str,
}

/// Small ones, trained for a few steps so that no weight is as it began.
const SUBJECTS: &[Subject] = &[
    Subject { name: "bytes", tokenizer: "bytes", config: "" },
    Subject { name: "bpe", tokenizer: "bpe:512", config: "" },
    // Of 16 pairs some turn fast, some slowly, some in between.
    Subject {
        name: "bpe, rotary frequencies scaled",
        tokenizer: "bpe:512",
        config: "rope_theta = 100.0\nrope_scaling = { factor = 8.0, low_freq_factor = 1.0, high_freq_factor = 4.0, \
                 original_max_position = 64 }\n",
    },
];

/// Exports two small models and compares; whether nothing differs.
pub fn run() -> Result<bool> {
    let place = target_dir()?.join("peers");
    std::fs::create_dir_all(&place)?;
    let models = place.join("models");
    if models.exists() {
        std::fs::remove_dir_all(&models)?;
    }
    std::fs::create_dir_all(&models)?;
    let gguf = install(&place, "gguf", GGUF);
    let tensorboard = install(&place, "tensorboard", TENSORBOARD);
    let torch = install_torch(&place);
    let mut all_agree = true;
    for (number, subject) in SUBJECTS.iter().enumerate() {
        println!("== {}", subject.name);
        let made = export(&models.join(number.to_string()), subject)?;
        all_agree &= compare(&place, &torch, &["logits".as_ref(), &made.hf])?;
        all_agree &= compare(&place, &gguf, &["gguf".as_ref(), &made.hf, &made.gguf])?;
        all_agree &= compare(&place, &tensorboard, &["events".as_ref(), &made.run])?;
    }
    println!("{}", if all_agree { "nothing differs" } else { "something DIFFERS" });
    Ok(all_agree)
}

/// PyTorch and `transformers` into `place`, once.
pub fn install_torch(place: &Path) -> Result<()> {
    install(place, "torch", TORCH)?;
    install(place, "transformers", TRANSFORMERS)?;
    stand_ins(place)
}

/// Where a subject lies.
struct Made {
    run: PathBuf,
    hf: PathBuf,
    gguf: PathBuf,
}

/// A run on the project's own documents, exported in both formats.
fn export(place: &Path, subject: &Subject) -> Result<Made> {
    let mut text = vec![];
    for folder in [root(), root().join("docs"), root().join("kernels"), root().join("engine/src/data")] {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            text.extend(path.extension().is_some_and(|e| e == "md" || e == "rs").then_some(path));
        }
    }
    text.sort();
    std::fs::create_dir_all(place)?;
    let (config, runs, hf, gguf) =
        (place.join("config.toml"), place.join("runs"), place.join("hf"), place.join("gguf"));
    std::fs::write(&config, format!("{CONFIG}{}", subject.config))?;
    let mut train = iota(&["train", "--steps", "10", "--tokenizer", subject.tokenizer]);
    succeed(train.arg("--config").arg(&config).arg("--runs").arg(&runs).arg("--text").args(text))?;
    let run = std::fs::read_dir(&runs)?.next().context("training left no folder")??.path();
    let mut to_hf = iota(&["export", "--to", "hf", "--reference"]);
    succeed(to_hf.arg("--run").arg(&run).arg("--out").arg(&hf))?;
    let mut to_gguf = iota(&["export", "--to", "gguf"]);
    succeed(to_gguf.arg("--run").arg(&run).arg("--out").arg(&gguf))?;
    Ok(Made { run, hf, gguf: gguf.join("model.gguf") })
}

/// Two stages of a model with grouped queries; a subject's part of `[model]` follows.
const CONFIG: &str = "seed = 11\n[inner]\nwarmup_steps = 2\n[data]\nsequences = 2\n[model]\ndim = 128\nheads = 4\n\
                      kv_heads = 2\nffn = 344\ncontext = 128\nstages = [2, 1]\n";

fn iota(arguments: &[&str]) -> Command {
    let mut command = cargo(&["run", "--release", "--quiet", "--package", "cli", "--"]);
    command.args(arguments);
    command
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command.status().context("cargo cannot be started")?;
    if !status.success() {
        bail!("{command:?} failed ({status})");
    }
    Ok(())
}

/// Runs a comparison; whether it holds or could not be run.
fn compare(place: &Path, installed: &Result<()>, arguments: &[&Path]) -> Result<bool> {
    if let Err(why) = installed {
        println!("not run: {}: {why:#}", arguments[0].display());
        return Ok(true);
    }
    let status = python(place).arg(script("check_export.py")).args(arguments).status()?;
    Ok(status.success())
}

/// Installs packages into a folder, once.
fn install(place: &Path, name: &str, packages: &[&str]) -> Result<()> {
    let done = place.join(format!("{name}.installed"));
    if done.exists() {
        return Ok(());
    }
    println!("== {name}, through pip");
    let status = Command::new("pip")
        .args(["install", "--quiet", "--upgrade", "--target"])
        .arg(place.join("site"))
        .args(packages)
        .status()
        .context("pip cannot be started: install Python's pip")?;
    if !status.success() {
        bail!("pip could not install {name} ({status})");
    }
    std::fs::write(done, "")?;
    Ok(())
}

/// Makes PyTorch importable where CUDA's libraries are missing.
fn stand_ins(place: &Path) -> Result<()> {
    let status = python(place)
        .arg(script("stand_ins.py"))
        .args([place.join("site"), place.join("stand-ins")])
        .status()
        .context("python3 cannot be started")?;
    if !status.success() {
        bail!("PyTorch cannot be imported here ({status}); it needs cc and nm to build stand-ins for CUDA");
    }
    Ok(())
}

/// Python with what is installed in `place`.
pub fn python(place: &Path) -> Command {
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", place.join("site"))
        .env("LD_LIBRARY_PATH", place.join("stand-ins"))
        // Nothing is fetched by name: what is compared lies in folders.
        .env("HF_HUB_OFFLINE", "1");
    command
}

/// One of the project's scripts for peers.
pub fn script(name: &str) -> PathBuf {
    root().join("benches/peers").join(name)
}
