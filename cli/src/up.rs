//! `iota up`: a whole swarm on this machine, every role a process of its own.

mod process;

use crate::device::OfSwarm;
use crate::evidence::evidence_files;
use crate::failure::{Failure, Result};
use crate::new::{self, NewRun, Recipe};
use crate::screen::Screen;
use crate::summary::Summary;
use orchestrator::{Ending, Notice, RunFolder};
use process::{Exited, Process};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStdout;
use tokio::sync::mpsc;

/// How long the orchestrator may take until nodes may come.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long a child may take to end once it is asked to.
const END_DEADLINE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    recipe: Recipe,
    /// Folder in which the run's folder is made
    #[arg(long, value_name = "FOLDER", default_value = "runs")]
    runs: PathBuf,
    /// Seconds until a lost node must be back that nobody stands in for
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    seat_grace: u64,
    #[command(flatten)]
    devices: OfSwarm,
    /// Seconds until a miner must have revealed what an audit drew from it
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    reveal_within: u64,
    /// Let one miner lie in this way, to see it caught: NAME, or NAME@STAGE for the first miner of a stage
    #[arg(long, hide = true, value_parser = parse_adversary)]
    adversary: Option<(String, Option<usize>)>,
}

fn parse_adversary(text: &str) -> std::result::Result<(String, Option<usize>), String> {
    let (name, stage) = match text.split_once('@') {
        Some((name, stage)) => {
            let stage = stage.parse().map_err(|_| format!("expected a stage number, found {stage:?}"))?;
            (name, Some(stage))
        }
        None => (text, None),
    };
    name.parse::<miner::Adversary>()?;
    Ok((name.into(), stage))
}

/// The miner that lies, and how. Where no stage is named it is one in the middle, or the tail, which reads labels.
fn liar(arguments: &Arguments, stages: usize) -> Result<Option<(usize, &str)>> {
    let Some((name, stage)) = &arguments.adversary else { return Ok(None) };
    let usual = if name == "label-tamperer" { stages - 1 } else { stages / 2 };
    match stage.unwrap_or(usual) {
        stage if stage < stages => Ok(Some((stage, name))),
        stage => Err(Failure::input(format!("--adversary: stage {stage}, but the run has {stages} stages"))),
    }
}

pub fn run(arguments: Arguments) -> Result<()> {
    crate::roles::runtime()?.block_on(swarm(arguments))
}

async fn swarm(arguments: Arguments) -> Result<()> {
    let began = Instant::now();
    arguments.devices.check()?;
    eprintln!("making a run: text, token shards, initial weights");
    let root = fresh_folder(&arguments.runs)?;
    let new = new::make(&root, &arguments.recipe)?;
    let stages = new.run.model.stage_count();
    liar(&arguments, stages)?;
    eprintln!(
        "run {} in {}: Llama of {} parameters in {stages} stages of {} miners, {} tokens of {}",
        new.run.id().short(),
        root.display(),
        new.run.model.parameters(),
        new.run.miners_per_stage,
        new.run.data.train_tokens,
        new.source
    );
    let mut summary = Summary::new(new.run.total_steps());
    let outcome = live(&arguments, &root, &new, &mut summary).await;
    conclude(&new, &root, &summary, began, outcome)
}

/// Starts every process, follows the run to its end, and ends every process.
async fn live(arguments: &Arguments, root: &Path, new: &NewRun, summary: &mut Summary) -> Result<()> {
    let (exits, mut exited) = mpsc::channel(16);
    let mut processes = vec![];
    let run = root.to_string_lossy().into_owned();
    let (seat_grace, reveal_within) = (arguments.seat_grace.to_string(), arguments.reveal_within.to_string());
    let (leader, output) = Process::start(
        "orchestrator",
        &[
            "orchestrator",
            "--run",
            &run,
            "--json",
            "--until-stdin-closes",
            "--seat-grace",
            &seat_grace,
            "--reveal-within",
            &reveal_within,
            "--mix-routes",
        ],
        1,
        &new.folder.path("logs/orchestrator.log"),
        exits.clone(),
    )?;
    let mut notices = BufReader::new(output).lines();
    processes.push(leader);
    let outcome = async {
        let invitation =
            tokio::time::timeout(START_DEADLINE, invitation(&mut notices, &new.folder))
                .await
                .map_err(|_| Failure::run("the orchestrator did not start in time: see its log"))??;
        let (stages, lanes) = (new.run.model.stage_count(), usize::from(new.run.miners_per_stage));
        for index in 0..stages * lanes {
            let lie = liar(arguments, stages)?.filter(|(liar, _)| *liar == index).map(|(_, name)| name);
            let device = arguments.devices.of_miner(index / stages).to_string();
            let mut more = vec!["--device", &*device];
            more.extend(lie.iter().flat_map(|lie| ["--adversary", lie]));
            let peers = stages * lanes;
            processes.push(start_node(&new.folder, "miner", index, peers, &invitation, &more, &exits)?);
            // Seats are given in the order of arrival; one after another, miner k holds stage k of the first lane, then
            // of the second.
            await_seats(&mut notices, summary, index, &new.folder).await?;
            if lie.is_some() {
                let key = transport::identity::load(&new.folder.key_path(&format!("miner-{index}")));
                summary.adversary = key.ok().map(|key| key.id().to_string());
            }
        }
        let device = arguments.devices.of_validator().to_string();
        let more = ["--device", &*device];
        processes.push(start_node(&new.folder, "validator", 0, 1, &invitation, &more, &exits)?);
        follow(&mut notices, &mut exited, summary, &new.folder).await
    }
    .await;
    for process in processes {
        process.end(END_DEADLINE).await;
    }
    outcome
}

/// Follows notices until the run ended, or Ctrl-C.
async fn follow(
    notices: &mut Lines<BufReader<ChildStdout>>,
    exited: &mut mpsc::Receiver<Exited>,
    summary: &mut Summary,
    folder: &RunFolder,
) -> Result<()> {
    let mut screen = Screen::new(summary.steps_total);
    let outcome = loop {
        tokio::select! {
            line = notices.next_line() => match line.ok().flatten() {
                Some(line) => {
                    let Ok(notice) = serde_json::from_str::<Notice>(&line) else { continue };
                    summary.take(&notice);
                    if let Some(sentence) = notice.sentence() {
                        screen.say(&sentence);
                    }
                    screen.draw(summary);
                    if let Notice::Ended { ending } = notice {
                        break match ending {
                            Ending::Complete => Ok(()),
                            Ending::Stopped => Err(Failure::run("the run was stopped before it was complete")),
                            Ending::Failed { why } => Err(Failure::run(why)),
                        };
                    }
                }
                None => break Err(died("orchestrator", folder)),
            },
            Some(exit) = exited.recv() => screen.say(&exit.to_string()),
            _ = tokio::signal::ctrl_c() => break Err(Failure::interrupted()),
        }
    };
    screen.end();
    outcome
}

/// Waits for the orchestrator's first line.
async fn invitation(notices: &mut Lines<BufReader<ChildStdout>>, folder: &RunFolder) -> Result<String> {
    while let Ok(Some(line)) = notices.next_line().await {
        if let Ok(Notice::Listening { invitation, .. }) = serde_json::from_str(&line) {
            return Ok(invitation);
        }
    }
    Err(died("orchestrator", folder))
}

/// Waits until miners 0 to `index` have their seats.
async fn await_seats(
    notices: &mut Lines<BufReader<ChildStdout>>,
    summary: &mut Summary,
    index: usize,
    folder: &RunFolder,
) -> Result<()> {
    let seated = async {
        while let Ok(Some(line)) = notices.next_line().await {
            let Ok(notice) = serde_json::from_str::<Notice>(&line) else { continue };
            summary.take(&notice);
            if let Notice::Ended { ending: Ending::Failed { why } } = notice {
                return Err(Failure::run(why));
            }
            if summary.seats.len() > index {
                return Ok(());
            }
        }
        Err(died("orchestrator", folder))
    };
    tokio::select! {
        seated = tokio::time::timeout(START_DEADLINE, seated) => {
            seated.unwrap_or_else(|_| Err(died(&format!("miner-{index}"), folder)))
        }
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    }
}

fn start_node(
    folder: &RunFolder,
    role: &str,
    index: usize,
    peers: usize,
    invitation: &str,
    more: &[&str],
    exits: &mpsc::Sender<Exited>,
) -> Result<Process> {
    let name = if role == "miner" { format!("miner-{index}") } else { role.to_owned() };
    let key = folder.key_path(&name).to_string_lossy().into_owned();
    let mut arguments = vec![role, "--join", invitation, "--key", &key, "--until-stdin-closes"];
    arguments.extend(more);
    let log = folder.path(&format!("logs/{name}.log"));
    // The miners share the machine.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if role == "miner" { cores.div_ceil(peers) } else { cores };
    let (process, output) = Process::start(&name, &arguments, threads, &log, exits.clone())?;
    process::to_log(output, &log);
    Ok(process)
}

/// A process that ended without a word; the last line of its log is its word.
fn died(name: &str, folder: &RunFolder) -> Failure {
    let log = folder.path(&format!("logs/{name}.log"));
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Failure::run(format!("{name} did not come up or ended without a word: {last} ({})", log.display()))
}

/// The path of a folder that is not there yet, named by the time.
fn fresh_folder(runs: &Path) -> Result<PathBuf> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_err(|_| Failure::input("the clock stands before 1970: set it"))?;
    std::fs::create_dir_all(runs)
        .map_err(|e| Failure::input(format!("--runs {}: cannot be made ({e})", runs.display())))?;
    // The process number keeps two swarms started in one second apart.
    Ok(runs.join(format!("tiny-{}-{}", now.as_secs(), std::process::id())))
}

/// The summary, in words and as a file, and the exit code.
fn conclude(new: &NewRun, root: &Path, summary: &Summary, began: Instant, outcome: Result<()>) -> Result<()> {
    let text = serde_json::to_vec_pretty(summary).map_err(|e| Failure::run(e.to_string()))?;
    new.folder.write("summary.json", &text, false).map_err(|e| Failure::run(e.to_string()))?;
    let seconds = began.elapsed().as_secs();
    println!("\niota up, {seconds} s");
    println!("  text     {} tokens of {}", new.run.data.train_tokens, new.source);
    println!(
        "  trained  {} of {} steps, {} tokens at {:.0} tokens/s on {} miner processes",
        summary.steps,
        summary.steps_total,
        summary.tokens,
        summary.tokens_per_second,
        new.run.model.stage_count() * usize::from(new.run.miners_per_stage),
    );
    if let (Some(first), Some(last)) = (summary.first_nats, summary.last_nats) {
        let bits = last / std::f64::consts::LN_2 / new.bytes_per_token;
        println!(
            "  loss     {first:.3} -> {last:.3} nats per token ({bits:.3} bits per byte, training text)"
        );
    }
    for (epoch, manifest) in &summary.commits {
        println!("  commit   epoch {epoch}: manifest {manifest} in the store, the pointer names it");
    }
    println!("  audits   {} windows replayed, every digest equal", summary.audits_equal);
    for finding in &summary.audits_unequal {
        println!("  UNEQUAL  {finding}");
    }
    for (_, why) in &summary.convictions {
        println!("  BANNED   {why}");
    }
    for path in evidence_files(&new.folder)? {
        println!(
            "  evidence {path}; anybody can check it: iota verify evidence {path}",
            path = path.display()
        );
    }
    println!(
        "  wire     {} tensors through the relay: {:.1} MB as {:?} blocks, {:.1} MB packed",
        summary.wire_frames,
        summary.wire_bytes_plain as f64 / 1e6,
        new.run.boundary,
        summary.wire_bytes_sent as f64 / 1e6
    );
    println!("  folder   {}", root.display());
    outcome?;
    match (summary.first_nats, summary.last_nats) {
        (Some(first), Some(last)) if last < first => Ok(()),
        _ => Err(Failure::run("the run is complete but its loss did not fall")),
    }
}
