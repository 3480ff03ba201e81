//! What others make of our exports: PyTorch's logits, and the tensors that PyPI's `gguf` reads.
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

/// Exports two small models and compares; whether nothing differs.
pub fn run() -> Result<bool> {
    let place = target_dir()?.join("peers");
    std::fs::create_dir_all(&place)?;
    let models = place.join("models");
    if models.exists() {
        std::fs::remove_dir_all(&models)?;
    }
    let gguf = install(&place, "gguf", GGUF);
    let torch = install(&place, "torch", TORCH)
        .and_then(|()| install(&place, "transformers", TRANSFORMERS))
        .and_then(|()| stand_ins(&place));
    let mut all_agree = true;
    for tokenizer in ["bytes", "bpe:512"] {
        println!("== a model of random weights, tokenizer {tokenizer}");
        let (hf, file) = export(&models, tokenizer)?;
        all_agree &= compare(&place, &torch, &["logits".as_ref(), &hf])?;
        all_agree &= compare(&place, &gguf, &["gguf".as_ref(), &hf, &file])?;
    }
    Ok(all_agree)
}

/// A run on the project's own documents, exported in both formats.
fn export(models: &Path, tokenizer: &str) -> Result<(PathBuf, PathBuf)> {
    let place = models.join(tokenizer.replace(':', "-"));
    let (run, hf, gguf) = (place.join("run"), place.join("hf"), place.join("gguf"));
    let mut text = vec![];
    for folder in [root(), root().join("docs"), root().join("kernels"), root().join("engine/src/data")] {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            text.extend(path.extension().is_some_and(|e| e == "md" || e == "rs").then_some(path));
        }
    }
    text.sort();
    let mut new = iota(&["run", "new", "--seed", "11", "--tokenizer", tokenizer]);
    succeed(new.arg("--folder").arg(&run).arg("--text").args(text))?;
    let mut to_hf = iota(&["export", "--to", "hf", "--reference"]);
    succeed(to_hf.arg("--run").arg(&run).arg("--out").arg(&hf))?;
    let mut to_gguf = iota(&["export", "--to", "gguf"]);
    succeed(to_gguf.arg("--run").arg(&run).arg("--out").arg(&gguf))?;
    Ok((hf, gguf.join("model.gguf")))
}

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

fn python(place: &Path) -> Command {
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", place.join("site"))
        .env("LD_LIBRARY_PATH", place.join("stand-ins"))
        // Nothing is fetched by name: what is compared lies in folders.
        .env("HF_HUB_OFFLINE", "1");
    command
}

fn script(name: &str) -> PathBuf {
    root().join("benches/peers").join(name)
}
