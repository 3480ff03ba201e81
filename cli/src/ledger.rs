//! `iota ledger`: who is paid what, and why.

use crate::failure::{Failure, Result};
use credit::{ChainAdapter, Ledger, Line, Reason, Settlement, WEIGHTS_SUM, explain};
use orchestrator::RunFolder;
use spec::{Digest, NodeId};
use std::path::{Path, PathBuf};

#[derive(clap::Subcommand)]
pub enum Command {
    /// Check every entry of a run's ledger, and show the last
    Show(Place),
    /// Why a key got what it got, epoch by epoch
    Explain {
        /// The key: its 64 digits, or as many of the first as are its alone
        key: String,
        #[command(flatten)]
        place: Place,
    },
    /// The call that pays the last entry's weights on a chain, as JSON; nothing is sent
    Settle {
        #[command(flatten)]
        place: Place,
        /// Table of the chain's uids: one `KEY UID` a line
        #[arg(long, value_name = "FILE")]
        uids: PathBuf,
        /// The subnet
        #[arg(long, value_name = "NUMBER")]
        netuid: u16,
        /// The weights' version
        #[arg(long, value_name = "NUMBER", default_value_t = 1)]
        version_key: u64,
        /// Who gets what is burned
        #[arg(long, value_name = "UID", default_value_t = 0)]
        burn_uid: u16,
    },
}

#[derive(clap::Args)]
pub struct Place {
    /// The run's folder
    #[arg(long, value_name = "FOLDER")]
    run: PathBuf,
}

pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Show(place) => show(&place.read()?),
        Command::Explain { key, place } => tell(&place, &key),
        Command::Settle { place, uids, netuid, version_key, burn_uid } => {
            let table = std::fs::read_to_string(&uids)
                .map_err(|e| Failure::input(format!("--uids {}: cannot be read ({e})", uids.display())))?;
            let chain = ChainAdapter::new(netuid, version_key, burn_uid, &table)
                .map_err(|e| Failure::input(format!("--uids {}: {e}", uids.display())))?;
            let ledger = place.read()?;
            let entry = last(&ledger)?;
            let payload = chain.settle(entry).map_err(|e| Failure::input(e.to_string()))?;
            println!("{}", serde_json::to_string_pretty(&payload).map_err(|e| Failure::run(e.to_string()))?);
            Ok(())
        }
    }
}

impl Place {
    fn read(&self) -> Result<Ledger> {
        let folder = RunFolder::open(&self.run).map_err(|e| Failure::input(e.to_string()))?;
        read(&folder.path("ledger"))
    }
}

fn read(path: &Path) -> Result<Ledger> {
    let wrong = |what: &dyn std::fmt::Display| Failure::input(format!("{}: {what}", path.display()));
    let bytes = std::fs::read(path).map_err(|e| {
        wrong(&format!("cannot be read ({e}); a run's ledger begins with its first stable epoch"))
    })?;
    Ok(Ledger::read(&bytes).map_err(|e| wrong(&e))?.0)
}

fn last(ledger: &Ledger) -> Result<&credit::Entry> {
    let last = ledger.entries().last();
    last.map(|entry| &entry.body)
        .ok_or_else(|| Failure::input("the ledger has no entry yet: no epoch is stable"))
}

fn show(ledger: &Ledger) -> Result<()> {
    let entry = last(ledger)?;
    let signer = ledger.entries()[0].signer;
    println!("ledger of run {}, kept by {signer}", entry.run);
    println!("{} entries: every signature, link, score and weight holds", ledger.entries().len());
    println!("epoch {}, manifest {}", entry.epoch, entry.manifest);
    println!("{:<18} {:>5} {:>16} {:>8} {:>8}", "miner", "stage", "GFLOP an epoch", "weight", "share");
    for share in &entry.shares {
        println!(
            "{:<18} {:>5} {:>16.3} {:>8} {:>7.2}%",
            share.miner.short(),
            share.stage,
            share.score as f64 / 1e9,
            share.weight,
            percent(share.weight)
        );
    }
    println!("{:<18} {:>5} {:>16} {:>8} {:>7.2}%", "burned", "", "", entry.burned, percent(entry.burned));
    for strike in ledger.struck() {
        println!("struck {}: {}", strike.miner.short(), evidence(strike.evidence));
    }
    Ok(())
}

fn evidence(digest: Option<Digest>) -> String {
    digest.map_or("it withheld what could be replayed".into(), |digest| format!("evidence {digest}"))
}

fn percent(weight: u16) -> f64 {
    100.0 * f64::from(weight) / f64::from(WEIGHTS_SUM)
}

fn tell(place: &Place, key: &str) -> Result<()> {
    let ledger = &place.read()?;
    let miner = find(ledger, key)?;
    println!("miner {miner}");
    for line in explain(ledger, miner) {
        println!("epoch {}: {}", line.epoch, sentence(&line));
    }
    let tile = place.run.join(format!("evidence/{miner}.tile.evidence"));
    if tile.exists() {
        println!("one tile of one op convicts it: iota verify evidence {}", tile.display());
    }
    Ok(())
}

/// The one key that begins so.
fn find(ledger: &Ledger, key: &str) -> Result<NodeId> {
    if let Ok(miner) = key.parse() {
        return Ok(miner);
    }
    let mut known: Vec<NodeId> = ledger
        .entries()
        .iter()
        .flat_map(|entry| entry.body.shares.iter().map(|share| share.miner))
        .chain(ledger.struck().map(|strike| strike.miner))
        .filter(|miner| !key.is_empty() && miner.to_string().starts_with(key))
        .collect();
    known.sort_unstable();
    known.dedup();
    match known[..] {
        [miner] => Ok(miner),
        [] => Err(Failure::input(format!(
            "no key of the ledger begins with {key:?}: `iota ledger show` lists them"
        ))),
        _ => Err(Failure::input(format!(
            "{} keys of the ledger begin with {key:?}: give more digits",
            known.len()
        ))),
    }
}

fn sentence(line: &Line) -> String {
    let did = match line.work {
        None => "no work in it".into(),
        Some(work) => {
            let part = 100.0 * work.flops as f64 / line.stage_flops.max(1) as f64;
            format!(
                "{} microbatches folded in {} steps of stage {} ({:.3} GFLOP, {part:.1} % of the stage), receipts {} to {} end in {}, {} audited windows equal",
                work.folded,
                work.steps,
                work.stage,
                work.flops as f64 / 1e9,
                work.first,
                work.last,
                work.head.short(),
                work.audits_equal
            )
        }
    };
    let weight = line.share.map_or(0, |share| share.weight);
    let why = match line.reason {
        Reason::Score => format!("weight {weight} by its score"),
        Reason::Cap => format!("weight {weight}: it reached the cap"),
        Reason::Minimum => "weight 0: below the minimum of its stage".into(),
        Reason::Struck { evidence: digest } => format!("weight 0: convicted, {}", evidence(digest)),
        Reason::Absent => "weight 0: nothing within the window".into(),
    };
    format!("{did}; {why}")
}
