//! The dashboard and the report of a live run, looked at in a headless Chromium.
//!
//! The browser comes from npm, into `target/browser`; where it cannot be had, this is "not run".

use crate::{cargo, root, target_dir};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// What a dashboard shows once work has begun.
const LIVE: &[&str] =
    &["live", "stage 0, head", "stage 2, tail", "validators", "nats per token", "epoch 0 committed"];
/// What a report shows besides.
const REPORT: &[&str] = &["complete", "held out", "What the model writes", "run.toml"];

/// The dashboard's picture goes to `docs/`; whether the pages show what they should.
pub fn run() -> Result<bool> {
    let place = target_dir()?.join("browser");
    if let Err(why) = install(&place) {
        println!("not run: {why:#}");
        return Ok(true);
    }
    let status = cargo(&["build", "--release", "--quiet", "--package", "cli"]).status()?;
    if !status.success() {
        bail!("iota cannot be built ({status})");
    }
    let runs = place.join("runs");
    if runs.exists() {
        std::fs::remove_dir_all(&runs)?;
    }
    let mut up = Command::new(target_dir()?.join("release/iota"))
        .args(["up", "--dashboard", "127.0.0.1:0", "--epochs", "4", "--runs"])
        .arg(&runs)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("iota cannot be started")?;
    let mut lines = BufReader::new(up.stderr.take().context("iota has no standard error")?).lines();
    let url = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let (_, url) = line.split_once("dashboard at ")?;
        Some(url.trim().to_owned())
    });
    // Read on, or the run would wait for its reader.
    let reader = std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    let looked = url.context("iota up named no dashboard").and_then(|url| {
        look(&place, &url, &root().join("docs/dashboard.png"), &[&["--changes"], LIVE].concat())
    });
    let status = up.wait()?;
    let _ = reader.join();
    let live = looked?;
    if !status.success() {
        bail!("iota up failed ({status})");
    }
    let run = std::fs::read_dir(&runs)?.next().context("no run folder was left")??.path();
    let report = format!("file://{}", run.join("report.html").display());
    Ok(live & look(&place, &report, &place.join("report.png"), REPORT)?)
}

fn look(place: &Path, url: &str, picture: &Path, arguments: &[&str]) -> Result<bool> {
    let mut node = Command::new("node");
    node.arg(place.join("look.mjs")).arg(url).arg(picture).args(arguments);
    // The package unpacks where temporary files go, and brings libraries where it thinks that it is in a bare container.
    node.env("TMPDIR", place.join("unpacked")).env("AWS_LAMBDA_JS_RUNTIME", "nodejs22.x");
    node.env("LD_LIBRARY_PATH", place.join("unpacked/al2023/lib"));
    Ok(node.status().context("node cannot be started: install npm")?.success())
}

/// The browser and the script into `place`, once.
fn install(place: &Path) -> Result<()> {
    std::fs::create_dir_all(place.join("unpacked"))?;
    for file in ["package.json", "look.mjs"] {
        std::fs::copy(root().join("xtask/browser").join(file), place.join(file))?;
    }
    if place.join("node_modules/puppeteer-core").exists() {
        return Ok(());
    }
    println!("== a browser, through npm");
    let status = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--loglevel", "error", "--prefix"])
        .arg(place)
        .status()
        .context("npm cannot be started: install npm")?;
    if !status.success() {
        bail!("npm install failed ({status})");
    }
    Ok(())
}
