//! The processes of a swarm on this machine: started, started again when they die, killed to see what happens.

use super::process::{self, Exited, Process};
use super::{Arguments, Victim};
use crate::failure::Result;
use crate::new::NewRun;
use orchestrator::{Notice, Report, RunFolder, View};
use serde::Serialize;
use spec::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc;

/// How long a child may take to end once it is asked to.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// The miners and the validator, and what became of them.
pub struct Crew<'a> {
    arguments: &'a Arguments,
    /// Processes that lie, and how.
    liars: BTreeMap<String, &'a str>,
    /// Their keys that were banned.
    replaced: BTreeSet<NodeId>,
    folder: RunFolder,
    invitation: String,
    miners: usize,
    lanes: usize,
    /// Microbatches of an epoch in one lane, and how often its pipeline fills and drains for them.
    microbatches: usize,
    fills: usize,
    exits: mpsc::Sender<Exited>,
    processes: BTreeMap<String, Process>,
    starts: BTreeMap<String, u32>,
    /// A killed process and how it came back, where that was asked for.
    pub recovery: Option<Recovery>,
}

/// What became of a process that was killed on purpose. Times are on the run's clock.
#[derive(Debug, Clone, Serialize)]
pub struct Recovery {
    /// Whom.
    pub process: String,
    /// In which epoch.
    pub epoch: u32,
    /// After how many inner steps of the run.
    pub steps: u64,
    /// When.
    pub killed_ms: u64,
    /// Until it had its seat again.
    pub seated_after_ms: Option<u64>,
    /// Until an inner step counted again.
    pub stepped_after_ms: Option<u64>,
    /// Until the epoch was committed.
    pub committed_after_ms: Option<u64>,
    /// Epochs that began again for it.
    pub rewinds: u32,
    /// Tokens computed in vain.
    pub tokens_lost: u64,
}

impl<'a> Crew<'a> {
    /// Nobody yet.
    pub fn new(
        arguments: &'a Arguments,
        new: &NewRun,
        liars: BTreeMap<String, &'a str>,
        invitation: String,
        exits: mpsc::Sender<Exited>,
    ) -> Self {
        let lanes = usize::from(new.run.miners_per_stage).max(1);
        let miners = new.run.model.stage_count() * lanes;
        Self {
            arguments,
            liars,
            replaced: BTreeSet::new(),
            folder: new.folder.clone(),
            invitation,
            miners,
            lanes,
            microbatches: usize::from(new.run.inner.members) * new.run.epoch.steps as usize,
            fills: new.run.fills() as usize,
            exits,
            processes: BTreeMap::new(),
            starts: BTreeMap::new(),
            recovery: None,
        }
    }

    /// How many miners there are to be.
    pub fn miners(&self) -> usize {
        self.miners
    }

    /// Starts `miner-<n>` or `validator`.
    pub fn start(&mut self, name: &str) -> Result<()> {
        let role = name.split('-').next().unwrap_or(name);
        let key = self.folder.key_path(name).to_string_lossy().into_owned();
        let mut options = vec![role, "--join", &self.invitation, "--key", &key, "--until-stdin-closes"];
        let devices = &self.arguments.devices;
        let stages = self.miners / self.lanes;
        let number = name.strip_prefix("miner-").and_then(|number| number.parse::<usize>().ok());
        let device = match number {
            Some(number) => devices.of_miner(number / stages).to_string(),
            None => devices.of_validator().to_string(),
        };
        options.extend(["--device", &device]);
        options.extend(devices.fallback().into_iter().flat_map(|place| ["--fallback", place]));
        options.extend(self.liars.get(name).into_iter().flat_map(|lie| ["--adversary", *lie]));
        let log = self.folder.path(&format!("logs/{name}.log"));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = if role == "miner" { self.threads(cores) } else { cores };
        let (process, output) = Process::start(name, &options, threads, &log, self.exits.clone())?;
        process::to_log(output, &log);
        self.processes.insert(name.to_owned(), process);
        *self.starts.entry(name.to_owned()).or_default() += 1;
        Ok(())
    }

    /// Compute threads of a miner: the miners that are busy at one time share the cores. Of a lane's stages those are
    /// microbatches x stages / (microbatches + fills x (stages - 1)) on average, the pipeline filling and draining in every
    /// inner step, or where these may be stale in every window (Huang et al. 2019, "GPipe", section 2.3).
    fn threads(&self, cores: usize) -> usize {
        let stages = self.miners / self.lanes;
        let slots = cores * (self.microbatches + self.fills * (stages - 1));
        slots.div_ceil((self.lanes * self.microbatches * stages).max(1)).clamp(1, cores)
    }

    /// A process ended: it is started again with the same key, a few times; in one sentence, what was done.
    pub fn ended(&mut self, exit: &Exited) -> String {
        let Some(starts) = self.starts.get(&exit.name).copied() else { return exit.to_string() };
        if !exit.is_accident() {
            return exit.to_string();
        }
        if starts > self.arguments.restarts {
            return format!("{exit}; it was started {starts} times, and is left alone now");
        }
        self.processes.remove(&exit.name);
        match self.start(&exit.name) {
            Ok(()) => format!("{exit}; started again with its key"),
            Err(error) => format!("{exit}; {error}"),
        }
    }

    /// Keys of those that were told to lie and have one.
    pub fn adversaries(&self) -> Vec<String> {
        self.liars.keys().filter_map(|name| Some(self.key_of(name)?.to_string())).collect()
    }

    fn key_of(&self, name: &str) -> Option<NodeId> {
        Some(transport::identity::load(&self.folder.key_path(name)).ok()?.id())
    }

    /// A liar is banned: an honest newcomer takes its place, as somebody would in a swarm that is open to others.
    fn replace(&mut self, banned: NodeId) -> Option<String> {
        let name = self.liars.keys().find(|name| self.key_of(name) == Some(banned))?;
        if !self.replaced.insert(banned) {
            return None;
        }
        let newcomer = match name.strip_prefix("miner-") {
            Some(_) => format!("miner-{}", self.miners + self.replaced.len() - 1),
            None => "validator-2".into(),
        };
        Some(match self.start(&newcomer) {
            Ok(()) => format!("{newcomer} comes in its place"),
            Err(error) => error.to_string(),
        })
    }

    /// Processes that were started more than once, and how often again.
    pub fn restarts(&self) -> BTreeMap<String, u32> {
        let again = self.starts.iter().filter(|(_, starts)| **starts > 1);
        again.map(|(name, starts)| (name.clone(), starts - 1)).collect()
    }

    /// Kills whom the user wants to see killed, half-way through an epoch, and follows what comes of it.
    pub fn follow(&mut self, notice: &Notice, view: &View) -> Option<String> {
        let Notice::Report { ms, report } = notice else { return None };
        if let Report::Convicted { node, .. } = report {
            return self.replace(*node);
        }
        if let Some(recovery) = &mut self.recovery {
            recovery.take(*ms, report, view);
            return None;
        }
        let victim = self.arguments.kill?;
        let Report::Stepped { epoch, step, .. } = report else { return None };
        let half = view.facts.steps_per_epoch / 2;
        if *epoch < u32::from(view.facts.epochs > 1) || *step + 1 != half.max(1) {
            return None;
        }
        let name = match victim {
            // The last to come: of two miners a stage, the second of the tail.
            Victim::Miner => format!("miner-{}", self.miners.saturating_sub(1)),
            Victim::Validator => "validator".into(),
        };
        self.processes.get_mut(&name)?.kill();
        self.recovery = Some(Recovery {
            process: name.clone(),
            epoch: *epoch,
            steps: view.steps,
            killed_ms: *ms,
            seated_after_ms: None,
            stepped_after_ms: None,
            committed_after_ms: None,
            rewinds: view.rewinds,
            tokens_lost: view.tokens_lost,
        });
        Some(format!("killing {name} after step {step} of epoch {epoch}, as asked"))
    }

    /// Ends every process in good order.
    pub async fn end(self) {
        for process in self.processes.into_values() {
            process.end(END_DEADLINE).await;
        }
    }
}

impl Recovery {
    fn take(&mut self, ms: u64, report: &Report, view: &View) {
        if self.committed_after_ms.is_some() {
            return;
        }
        let after = ms.saturating_sub(self.killed_ms);
        match report {
            Report::Joined { .. } => _ = self.seated_after_ms.get_or_insert(after),
            Report::Stepped { .. } if self.seated_after_ms.is_some() => {
                self.stepped_after_ms.get_or_insert(after);
            }
            Report::Committed { .. } => {
                self.committed_after_ms = Some(after);
                self.rewinds = view.rewinds - self.rewinds;
                self.tokens_lost = view.tokens_lost - self.tokens_lost;
            }
            _ => {}
        }
    }
}

impl std::fmt::Display for Recovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds =
            |ms: Option<u64>| ms.map_or("not".into(), |ms| format!("{:.1} s later", ms as f64 / 1e3));
        write!(
            f,
            "{} killed in epoch {} after step {}: seated again {}, a step counted {}, the epoch committed {}; {} epochs began \
             again, {} tokens lost",
            self.process,
            self.epoch,
            self.steps,
            seconds(self.seated_after_ms),
            seconds(self.stepped_after_ms),
            seconds(self.committed_after_ms),
            self.rewinds,
            self.tokens_lost
        )
    }
}
