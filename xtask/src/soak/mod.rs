//! `cargo xtask soak`: what the tests do for seconds, for hours: many seeds of every misfortune, thousands of miners of which some
//! cheat, many kills, bytes that nobody would send. What came of it is written to `docs/soak.md` as it goes on.

mod record;

use crate::{cargo, root, target_dir};
use anyhow::{Context, Result, ensure};
use record::Part;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Scenarios in which somebody is lost, late or slow.
const SCENARIOS: &[&str] = &[
    "miner_lost",
    "miner_restarted",
    "orchestrator_restarted",
    "churn",
    "turmoil",
    "flaky",
    "direct_flaky",
    "slow",
    "growing",
    "deserted",
];

/// All simulations are done in so many slices, one slice of each in turn, so that an interrupted soak tried a little of everything.
const SLICES: u64 = 50;

#[derive(clap::Args)]
pub struct Arguments {
    /// Runs of swarms of some fifty miners: half of them with three tenths of cheats, the others shared by ten misfortunes; 0
    /// leaves them out
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// Runs of swarms of 5,000 miners, three tenths of which cheat; 0 leaves them out
    #[arg(long, default_value_t = 50)]
    large: u64,
    /// How often the orchestrator process is killed in one run; 0 leaves the processes out
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// Seconds for which decoders are fed with what nobody would send; 0 leaves them out
    #[arg(long, default_value_t = 1800)]
    fuzz: u64,
    /// Do these alone, and leave the other rows of docs/soak.md as they are
    #[arg(long, value_delimiter = ',')]
    only: Vec<Kind>,
    /// A copy of `iota` to simulate with; without it, one is built of this tree and put aside
    #[arg(long, requires = "at")]
    binary: Option<PathBuf>,
    /// The commit that it was built from: a row of docs/soak.md of the same goes on where it was, another begins anew
    #[arg(long, requires = "binary")]
    at: Option<String>,
    /// Simulators at a time [default: as many as there are processors]
    #[arg(long)]
    processes: Option<u64>,
}

/// What is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// The swarms of `--seeds`
    Small,
    /// Those of `--large`
    Large,
    /// `--kills`
    Kills,
    /// `--fuzz`
    Fuzz,
}

/// One row of the record, and how it is done.
struct Task {
    kind: Kind,
    /// What simulators are told.
    scenario: &'static str,
    stages: u16,
    miners: u16,
}

/// Runs everything and writes what came of it; whether all of it holds.
pub fn run(arguments: &Arguments) -> Result<bool> {
    let processes = arguments.processes.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, |processors| processors.get() as u64)
    });
    ensure!(processes > 0, "--processes 0: one at least must run");
    let mut rows: Vec<(Task, Part)> = plan(arguments);
    let before = std::fs::read_to_string(record::path()).map(|page| record::read(&page)).unwrap_or_default();
    let chosen = |kind| arguments.only.is_empty() || arguments.only.contains(&kind);
    let commit = arguments.at.clone().map_or_else(record::commit, Ok)?;
    for (task, part) in &mut rows {
        if let Some(before) = before.iter().find(|row| row.name == part.name) {
            part.go_on_from(before, chosen(task.kind).then_some(&commit));
        }
    }
    let slices: Vec<u64> = rows.iter().map(|(_, part)| part.asked.div_ceil(SLICES)).collect();
    let is_due = |(task, part): &(Task, Part)| chosen(task.kind) && part.is_open();
    let is_simulated = |row: &(Task, Part)| !matches!(row.0.kind, Kind::Kills | Kind::Fuzz);
    let simulates = rows.iter().any(|row| is_due(row) && is_simulated(row));
    let simulator = match &arguments.binary {
        Some(binary) => Some(binary.clone()),
        None => simulates.then(simulator).transpose()?,
    };
    while let Some(simulator) =
        simulator.as_deref().filter(|_| rows.iter().any(|row| is_due(row) && is_simulated(row)))
    {
        for at in 0..rows.len() {
            if is_due(&rows[at]) && is_simulated(&rows[at]) {
                let (task, part) = &mut rows[at];
                let seeds = slices[at].min(part.asked - part.passed);
                simulate(simulator, task, part, seeds, processes, &commit)?;
                write(&rows)?;
            }
        }
    }
    for at in 0..rows.len() {
        if is_due(&rows[at]) {
            let (task, part) = &mut rows[at];
            *part = Part::new(part.name.clone(), part.asked);
            of_processes(task.kind, part, &commit)?;
            write(&rows)?;
        }
    }
    write(&rows)?;
    let holds = rows.iter().all(|(_, part)| part.failed.is_none());
    println!("{}; see docs/soak.md", if holds { "everything holds" } else { "something does NOT hold" });
    Ok(holds)
}

fn write(rows: &[(Task, Part)]) -> Result<()> {
    record::write(&rows.iter().map(|(_, part)| part.clone()).collect::<Vec<_>>())
}

/// Everything that is asked for, in the order of the record.
fn plan(arguments: &Arguments) -> Vec<(Task, Part)> {
    let Arguments { seeds, large, kills, fuzz, .. } = *arguments;
    let mut rows = Vec::new();
    // The first to be rounded down are the misfortunes.
    let misfortunes = seeds / 2;
    let scenarios = SCENARIOS.len() as u64;
    for (number, scenario) in (0..).zip(SCENARIOS) {
        let share = misfortunes / scenarios + u64::from(number < misfortunes % scenarios);
        let name = format!("{scenario}, 51 miners");
        rows.push((Task { kind: Kind::Small, scenario, stages: 3, miners: 17 }, Part::new(name, share)));
    }
    for (kind, name, asked, stages, miners) in [
        (Kind::Small, "three tenths cheat, 50 miners", seeds - misfortunes, 5, 10),
        (Kind::Large, "three tenths cheat, 5,000 miners", large, 100, 50),
        (Kind::Kills, "kills of the orchestrator in one run", kills, 0, 0),
        (Kind::Fuzz, "seconds of decoding what nobody would send", fuzz, 0, 0),
    ] {
        rows.push((Task { kind, scenario: "mixed", stages, miners }, Part::new(name.into(), asked)));
    }
    rows.retain(|(_, part)| part.asked > 0);
    rows
}

/// Builds the simulator and puts a copy aside: what is built meanwhile changes nothing of what is tried.
fn simulator() -> Result<PathBuf> {
    ensure!(cargo(&["build", "--release", "--quiet", "-p", "cli"]).status()?.success(), "cli was not built");
    let copy = target_dir()?.join("soak").join("iota");
    std::fs::create_dir_all(copy.parent().context("a folder of its own")?)?;
    std::fs::copy(target_dir()?.join("release/iota"), &copy).with_context(|| copy.display().to_string())?;
    Ok(copy)
}

/// The next `seeds` of a part, shared by processes; the first that does not hold is shown with its command.
fn simulate(
    simulator: &Path,
    task: &Task,
    part: &mut Part,
    seeds: u64,
    processes: u64,
    commit: &str,
) -> Result<()> {
    let shares = (0..processes).map(|number| seeds / processes + u64::from(number < seeds % processes));
    let mut first = part.passed + 1;
    let commands: Vec<Command> = shares
        .filter(|share| *share > 0)
        .map(|share| {
            let mut command = Command::new(simulator);
            command.args(["sim", "--scenario", task.scenario]).current_dir(root());
            let sizes = [("--stages", task.stages.into()), ("--miners", task.miners.into())];
            for (flag, number) in [("--seed", first), ("--seeds", share), ("--steps", 4), ("--members", 1)]
                .into_iter()
                .chain(sizes)
            {
                command.arg(flag).arg(number.to_string());
            }
            first += share;
            command
        })
        .collect();
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let run = |mut command: Command| {
            let began = Instant::now();
            command.output().map(|output| (output, began.elapsed().as_secs_f64()))
        };
        let started: Vec<_> = commands.into_iter().map(|command| scope.spawn(move || run(command))).collect();
        started.into_iter().map(|process| process.join()).collect()
    });
    for output in outputs {
        let (output, seconds) = output.ok().context("the thread that waits for a simulator ended")??;
        let text = String::from_utf8_lossy(&output.stdout);
        let runs = text.lines().filter(|line| line.starts_with(task.scenario)).count() as u64;
        let holds = output.status.success();
        // The seed that does not hold is told too.
        part.add(if holds { runs } else { runs.saturating_sub(1) }, seconds, commit);
        if !holds {
            let from = text.rfind(&format!("\n{}", task.scenario)).unwrap_or_default();
            println!("{}\n{}", text[from..].trim(), String::from_utf8_lossy(&output.stderr).trim());
            let again = text.lines().rev().find_map(|line| line.trim().strip_prefix("again: "));
            part.failed = Some(again.unwrap_or("the simulator ended without a report").to_owned());
        }
    }
    println!("{}: {} of {} in {:.0} s", part.name, part.passed, part.asked, part.seconds);
    Ok(())
}

/// What is tried with processes, all of it at once.
fn of_processes(kind: Kind, part: &mut Part, commit: &str) -> Result<()> {
    let asked = part.asked.to_string();
    let trial = "a_killed_orchestrator_goes_on";
    let arguments = match kind {
        Kind::Fuzz => vec!["run", "--release", "--quiet", "-p", "fuzz", "--", "--seconds", &asked],
        _ => {
            vec!["test", "--release", "--quiet", "-p", "cli", "--test", "crew", trial, "--", "--nocapture"]
        }
    };
    println!("{asked} {}", part.name);
    let began = Instant::now();
    let holds = cargo(&arguments).env("IOTA_SOAK_KILLS", &asked).status()?.success();
    part.add(if holds { part.asked } else { 0 }, began.elapsed().as_secs_f64(), commit);
    part.failed = (!holds).then(|| format!("cargo {}", arguments.join(" ")));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_swarms_share_the_seeds_and_half_of_them_cheat() {
        let of = |seeds| {
            let arguments = Arguments {
                seeds,
                large: 0,
                kills: 0,
                fuzz: 0,
                only: Vec::new(),
                binary: None,
                at: None,
                processes: None,
            };
            let asked = |(task, part): (Task, Part)| (task.scenario == "mixed", part.asked);
            plan(&arguments).into_iter().map(asked).collect::<Vec<_>>()
        };
        let whole = of(10_000);
        assert_eq!(whole.iter().map(|(_, asked)| asked).sum::<u64>(), 10_000);
        assert!(whole.len() == 11 && whole.contains(&(true, 5_000)) && whole.contains(&(false, 500)));
        assert_eq!(of(7).iter().map(|(_, asked)| asked).sum::<u64>(), 7);
        assert!(of(0).is_empty());
    }
}
