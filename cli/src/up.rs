//! `iota up`: a whole swarm on this machine, every role a process of its own.

mod crew;
mod harvest;
mod process;

use crate::device::OfSwarm;
use crate::failure::{Failure, Result};
use crate::new::{self, NewRun, Recipe};
use crate::roles::Route;
use crate::screen::Screen;
use crew::{Crew, Recovery};
use orchestrator::{Ending, Notice, RunFolder, View};
use process::{Exited, Process};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStdout;
use tokio::sync::mpsc;

/// How long the orchestrator may take until nodes may come.
const START_DEADLINE: Duration = Duration::from_secs(60);
/// How long it may take to end once it is asked to.
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
    /// How tensors go from miner to miner
    // All are on one machine and somebody's own: nobody learns an address that it should not.
    #[arg(long, value_enum, default_value_t = Route::Direct)]
    route: Route,
    /// Where the dashboard is served (TCP), or `off` [default: 127.0.0.1:4780, or any free port]
    #[arg(long, value_name = "ADDRESS", value_parser = checked_dashboard)]
    dashboard: Option<String>,
    /// How often a miner or validator that died is started again
    #[arg(long, value_name = "TIMES", default_value_t = 3)]
    restarts: u32,
    /// Kill one process half-way through an epoch, to see the swarm recover
    #[arg(long, value_enum)]
    kill: Option<Victim>,
}

/// Whom to kill.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Victim {
    Miner,
    Validator,
}

/// The address as it is, once it is known to be one: the orchestrator takes it.
fn checked_dashboard(text: &str) -> std::result::Result<String, String> {
    crate::roles::parse_dashboard(text).map(|_| text.into())
}

fn parse_adversary(text: &str) -> std::result::Result<(String, Option<usize>), String> {
    let (name, stage) = match text.split_once('@') {
        Some((name, stage)) => {
            let stage = stage.parse().map_err(|_| format!("expected a stage number, found {stage:?}"))?;
            (name, Some(stage))
        }
        None => (text, None),
    };
    if name != PAIR && name.parse::<validator::Adversary>().is_err() {
        name.parse::<miner::Adversary>()?;
    }
    Ok((name.into(), stage))
}

/// All miners of a stage sign the same wrong sums.
const PAIR: &str = "colluding-pair";

/// The processes that lie, and how. Where no stage is named it is one in the middle, or the tail, which reads labels.
fn liars(arguments: &Arguments, stages: usize, lanes: usize) -> Result<BTreeMap<String, &str>> {
    let Some((name, stage)) = &arguments.adversary else { return Ok(BTreeMap::new()) };
    if name.parse::<validator::Adversary>().is_ok() {
        return Ok([("validator".into(), name.as_str())].into());
    }
    let usual = if name == "label-tamperer" { stages - 1 } else { stages / 2 };
    match stage.unwrap_or(usual) {
        stage if stage < stages && name == PAIR => {
            Ok((0..lanes).map(|lane| (format!("miner-{}", lane * stages + stage), "wrong-sum")).collect())
        }
        stage if stage < stages => Ok([(format!("miner-{stage}"), name.as_str())].into()),
        stage => Err(Failure::input(format!("--adversary: stage {stage}, but the run has {stages} stages"))),
    }
}

pub fn run(arguments: Arguments) -> Result<()> {
    let began = Instant::now();
    arguments.devices.check()?;
    eprintln!("making a run: text, token shards, initial weights");
    let root = fresh_folder(&arguments.runs)?;
    let new = new::make(&root, &arguments.recipe)?;
    let stages = new.run.model.stage_count();
    liars(&arguments, stages, usize::from(new.run.miners_per_stage))?;
    eprintln!(
        "run {} in {}: Llama of {} parameters in {stages} stages of {} miners, {} tokens of {}",
        new.run.id().short(),
        root.display(),
        new.run.model.parameters(),
        new.run.miners_per_stage,
        new.run.data.train_tokens,
        new.source
    );
    if new.run.audit.windows > 0 {
        eprintln!("{}", crate::config::price_of_audits(&new.run));
    }
    // The trial steps are the CPU's, and so are the constants.
    let predicted = match arguments.devices.all_on_cpu() {
        true => Some(crate::plan::foretell(&new.run, new.train_shard()?)?),
        false => None,
    };
    match predicted {
        Some(rate) => eprintln!("foretold: {rate:.0} tokens/s, merges and audits included"),
        None => eprintln!("foretold: nothing, for not all compute on the CPU"),
    }
    let mut view = View::new(&new.run);
    let mut fates = Fates::default();
    let outcome = crate::roles::runtime()?.block_on(live(&arguments, &root, &new, &mut view, &mut fates));
    harvest::conclude(&new, &root, &view, began, predicted, fates, outcome)
}

/// What became of the processes.
#[derive(Default)]
struct Fates {
    /// Those that were started again, and how often.
    restarts: BTreeMap<String, u32>,
    /// The one that was killed on purpose.
    recovery: Option<Recovery>,
    /// Keys of those that were told to lie.
    adversaries: Vec<String>,
}

/// Starts every process, follows the run to its end, and ends every process.
async fn live(
    arguments: &Arguments,
    root: &Path,
    new: &NewRun,
    view: &mut View,
    fates: &mut Fates,
) -> Result<()> {
    let (exits, mut exited) = mpsc::channel(16);
    let run = root.to_string_lossy().into_owned();
    let (seat_grace, reveal_within) = (arguments.seat_grace.to_string(), arguments.reveal_within.to_string());
    let mut options = vec!["orchestrator", "--run", &run, "--json", "--until-stdin-closes", "--mix-routes"];
    options.extend(["--seat-grace", &seat_grace, "--reveal-within", &reveal_within]);
    options.extend(["--route", arguments.route.word()]);
    if let Some(address) = &arguments.dashboard {
        options.extend(["--dashboard", address]);
    }
    let log = new.folder.path("logs/orchestrator.log");
    let (leader, output) = Process::start("orchestrator", &options, 1, &log, exits.clone())?;
    let mut notices = BufReader::new(output).lines();
    let outcome = async {
        let invitation =
            tokio::time::timeout(START_DEADLINE, invitation(&mut notices, &new.folder))
                .await
                .map_err(|_| Failure::run("the orchestrator did not start in time: see its log"))??;
        let lanes = usize::from(new.run.miners_per_stage);
        let liars = liars(arguments, new.run.model.stage_count(), lanes)?;
        let mut crew = Crew::new(arguments, new, liars, invitation, exits);
        let outcome = async {
            for index in 0..crew.miners() {
                crew.start(&format!("miner-{index}"))?;
                // Seats are given in the order of arrival; one after another, miner k holds stage k of the first lane,
                // then of the second.
                await_seats(&mut notices, view, index, &new.folder).await?;
            }
            crew.start("validator")?;
            follow(&mut notices, &mut exited, view, &mut crew, &new.folder).await
        }
        .await;
        *fates = Fates {
            restarts: crew.restarts(),
            recovery: crew.recovery.clone(),
            adversaries: crew.adversaries(),
        };
        crew.end().await;
        outcome
    }
    .await;
    leader.end(END_DEADLINE).await;
    outcome
}

/// Follows notices until the run ended, or Ctrl-C.
async fn follow(
    notices: &mut Lines<BufReader<ChildStdout>>,
    exited: &mut mpsc::Receiver<Exited>,
    view: &mut View,
    crew: &mut Crew<'_>,
    folder: &RunFolder,
) -> Result<()> {
    let mut screen = Screen::new(view.steps_total);
    let outcome = loop {
        tokio::select! {
            line = notices.next_line() => match line.ok().flatten() {
                Some(line) => {
                    let Ok(notice) = serde_json::from_str::<Notice>(&line) else { continue };
                    view.take(&notice);
                    for sentence in notice.sentence().into_iter().chain(crew.follow(&notice, view)) {
                        screen.say(&sentence);
                    }
                    screen.draw(view);
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
            Some(exit) = exited.recv() => screen.say(&crew.ended(&exit)),
            _ = tokio::signal::ctrl_c() => break Err(Failure::interrupted()),
        }
    };
    screen.end();
    outcome
}

/// Waits for the orchestrator's first words: the invitation, for the nodes. Where the dashboard is, the user hears next.
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
    view: &mut View,
    index: usize,
    folder: &RunFolder,
) -> Result<()> {
    let seated = async {
        while let Ok(Some(line)) = notices.next_line().await {
            let Ok(notice) = serde_json::from_str::<Notice>(&line) else { continue };
            view.take(&notice);
            match &notice {
                Notice::Ended { ending: Ending::Failed { why } } => return Err(Failure::run(why)),
                Notice::Dashboard { .. } => {
                    notice.sentence().into_iter().for_each(|said| eprintln!("{said}"))
                }
                _ => {}
            }
            if view.nodes.values().filter(|node| node.stage.is_some()).count() > index {
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
    Ok(runs.join(format!("swarm-{}-{}", now.as_secs(), std::process::id())))
}
