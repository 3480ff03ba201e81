//! Every adversary as a real miner in a swarm of 3 x 2 on this machine: caught or not, when, and what it cost.

use crate::{cargo, root, target_dir};
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Each with what it is banned for, as `docs/adversaries.md` tells.
const NAMES: [&str; 21] = [
    "free-rider",
    "copier",
    "sign-flipper",
    "stale-replayer",
    "lazy-precision",
    "label-tamperer",
    "forward-bit",
    "backward-bit",
    "step-bit",
    "poison",
    "garbage",
    "wrong-sum",
    "equivocator",
    "withholder",
    "moments",
    "returner",
    "contribution",
    "slow-loris",
    "colluding-pair",
    "lazy-validator",
    "accuser",
];

#[derive(clap::Args)]
pub struct Arguments {
    /// Text to train on; our own documents when left out
    #[arg(long)]
    text: Option<PathBuf>,
    /// These alone, by name; all when left out
    #[arg(long, value_delimiter = ',', value_parser = NAMES)]
    only: Vec<String>,
    /// Inner steps of each miner in an epoch
    #[arg(long, default_value_t = 12)]
    steps: u32,
    /// Epochs
    #[arg(long, default_value_t = 6)]
    epochs: u32,
}

/// What a run came to.
struct Outcome {
    summary: serde_json::Value,
    /// Evidence files, and how many of them `iota verify evidence` agrees with.
    evidence: (usize, usize),
    seconds: f64,
}

/// Prints the table; `false` if somebody got away, or somebody honest was banned.
///
/// # Errors
/// The program cannot be built or run.
pub fn run(arguments: &Arguments) -> Result<bool> {
    ensure!(cargo(&["build", "--release", "--package", "cli"]).status()?.success(), "iota does not build");
    let program = target_dir()?.join("release/iota");
    let place = target_dir()?.join("adversaries");
    if place.exists() {
        std::fs::remove_dir_all(&place).context("the last runs cannot be removed")?;
    }
    std::fs::create_dir_all(&place).context("target/adversaries cannot be made")?;
    let text = match &arguments.text {
        Some(text) => text.clone(),
        None => own_documents(&place)?,
    };
    let honest = up(&program, &place, &text, arguments, None)?;
    let nats = honest.summary["last_nats"].as_f64().context("the honest run has no loss")?;
    println!(
        "| adversary | caught | in epoch | honest miners banned | evidence that `iota verify` agrees with | loss at the end (honest {nats:.4}) | tokens lost | time, s (honest {:.0}) |",
        honest.seconds
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut all_well = true;
    let asked = |name: &&str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == name);
    for name in NAMES.into_iter().filter(asked) {
        let outcome = up(&program, &place, &text, arguments, Some(name))?;
        let summary = &outcome.summary;
        let convictions: Vec<&serde_json::Value> =
            summary["convictions"].as_array().map(|all| all.iter().collect()).unwrap_or_default();
        let liars = summary["adversaries"].as_array().context("no liar is named")?;
        let caught = convictions.iter().find(|conviction| liars.contains(&conviction[0]));
        let slandered = convictions.iter().filter(|conviction| !liars.contains(&conviction[0])).count();
        let why = caught.and_then(|conviction| conviction[1].as_str()).unwrap_or_default();
        let epoch =
            why.split("epoch ").nth(1).and_then(|rest| rest.split([',', ')', ':']).next()).unwrap_or("-");
        let last = summary["last_nats"].as_f64().unwrap_or(f64::NAN);
        let (files, agreed) = outcome.evidence;
        let is_slow = name == "slow-loris";
        println!(
            "| {name} | {} | {epoch} | {slandered} | {agreed} of {files} | {last:.4} ({:+.1} %) | {} | {:.0} |",
            match caught {
                Some(_) => "yes",
                None if is_slow => "not waited for",
                None => "NO",
            },
            100.0 * (last / nats - 1.0),
            summary["tokens_lost"],
            outcome.seconds,
        );
        // Slow is no lie: nobody is to be banned.
        all_well &= caught.is_some() != is_slow && slandered == 0 && agreed == files;
    }
    Ok(all_well)
}

/// README, ARCHITECTURE and docs as one file: English that is on every checkout.
fn own_documents(place: &Path) -> Result<PathBuf> {
    let mut paths =
        vec![root().join("README.md"), root().join("ARCHITECTURE.md"), root().join("kernels/ARITHMETIC.md")];
    for entry in root().join("docs").read_dir()? {
        paths.push(entry?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    paths.sort();
    let mut text = String::new();
    for path in paths {
        text += &std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    }
    let path = place.join("text.txt");
    std::fs::write(&path, text)?;
    Ok(path)
}

fn up(
    program: &Path,
    place: &Path,
    text: &Path,
    arguments: &Arguments,
    adversary: Option<&str>,
) -> Result<Outcome> {
    let runs = place.join(adversary.unwrap_or("honest"));
    let mut command = Command::new(program);
    command.arg("up").arg("--runs").arg(&runs);
    command.args([
        "--preset",
        "tiny",
        "--dashboard",
        "off",
        "--miners-per-stage",
        "2",
        "--reveal-within",
        "10",
    ]);
    command.args(["--steps", &arguments.steps.to_string(), "--epochs", &arguments.epochs.to_string()]);
    if let Some("contribution" | "colluding-pair") = adversary {
        // These lie once an epoch, where a merge or a sum is drawn as often as a window: always, if all of these are.
        command.args(["--audits", "64"]);
    }
    command.arg("--text").arg(text);
    if let Some(adversary) = adversary {
        command.args(["--adversary", adversary]);
    }
    let began = Instant::now();
    let output = command.output().with_context(|| format!("{} cannot be started", program.display()))?;
    let seconds = began.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "the run with {adversary:?} failed: {}",
        said.lines().last().unwrap_or("-")
    );
    let run = runs.read_dir()?.next().context("no run's folder")??.path();
    let summary = serde_json::from_slice(&std::fs::read(run.join("summary.json"))?)?;
    let (mut files, mut agreed) = (0, 0);
    for entry in run.join("evidence").read_dir()? {
        files += 1;
        let verified = Command::new(program).args(["verify", "evidence"]).arg(entry?.path()).output()?;
        agreed += usize::from(verified.status.success());
    }
    Ok(Outcome { summary, evidence: (files, agreed), seconds })
}
