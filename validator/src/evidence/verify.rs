//! From the bytes of an evidence file to one verdict.

use super::case::{same, signature};
use super::file::{Parts, unpack};
use super::{Refused, beginning, refused};
use crate::replay::{Window, perform, reads_tokens};
use engine::Device;
use engine::data::TokenShard;
use spec::{Digest, NodeId, Run};
use std::panic::{AssertUnwindSafe, catch_unwind};
use validator_core::{Objection, Replay, begins_epoch, check, compare};
use wire::{Evidence, Finding, ObjectRef};

/// What the reader knows already. Evidence about anything else is refused.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected {
    /// The run's id.
    pub run: Option<Digest>,
    /// The accused.
    pub miner: Option<NodeId>,
    /// Whose verdict it is.
    pub validator: Option<NodeId>,
    /// Who signed the manifest, where there is one.
    pub orchestrator: Option<NodeId>,
}

/// What an evidence file is about, and what it proves.
#[derive(Debug, Clone)]
pub struct Report {
    /// BLAKE3 of the case: the evidence's name.
    pub evidence: Digest,
    /// The run.
    pub run: Run,
    /// The accused.
    pub miner: NodeId,
    /// Its stage.
    pub stage: u16,
    /// Which inner step.
    pub window: spec::Window,
    /// The validator who signed the verdict.
    pub validator: NodeId,
    /// Who signed the manifest.
    pub orchestrator: NodeId,
    /// What that verdict says.
    pub said: Finding,
    /// What was found here.
    pub outcome: Outcome,
}

/// What evidence proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The accused signed what is not so.
    Convicted(Conviction),
    /// The accused signed what the replay gives.
    NotProven {
        /// Operations replayed.
        operations: u32,
    },
}

/// What the accused signed, against what is so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conviction {
    /// The operation whose receipt is wrong; none where a receipt has the wrong fields or cannot be replayed.
    pub operation: Option<String>,
    /// `Unequal` or `Inconsistent`.
    pub finding: Finding,
}

/// Decides an evidence file. `shard` is the training shard where it does not travel inside.
///
/// # Errors
/// Evidence that proves nothing about anybody: damaged, edited, signed by another, of another run, or incomplete.
pub fn verify(file: &[u8], shard: Option<&TokenShard>, expected: &Expected) -> Result<Report, Refused> {
    decide(unpack(file)?, shard, expected)
}

/// As [`verify`], of what a file holds.
///
/// # Errors
/// As [`verify`].
pub fn decide(parts: Parts<'_>, shard: Option<&TokenShard>, expected: &Expected) -> Result<Report, Refused> {
    let run_id = parts.run.id();
    check_signed(&parts.case, run_id, expected)?;
    let outcome = if parts.case.order.window.is_beginning() {
        beginning::decide(&parts, run_id)?
    } else {
        replay_window(&parts, run_id, shard)?
    };
    let Parts { run, case, digest, .. } = parts;
    Ok(Report {
        evidence: digest,
        run,
        miner: case.order.miner,
        stage: case.order.stage,
        window: case.order.window,
        validator: case.verdict.signer,
        orchestrator: case.manifest.signer,
        said: case.verdict.body.finding,
        outcome,
    })
}

fn replay_window(parts: &Parts<'_>, run_id: Digest, shard: Option<&TokenShard>) -> Result<Outcome, Refused> {
    match check(&parts.run, run_id, &parts.case.order) {
        Ok(operations) => replay(parts, operations, shard),
        Err(Objection::Miner(why)) => {
            Ok(Outcome::Convicted(Conviction { operation: None, finding: Finding::Inconsistent { why } }))
        }
        Err(Objection::Order(why)) => {
            Err(refused("receipts", "one window of the accused, signed and unbroken", why))
        }
    }
}

/// Manifest and verdict hold, and are about the same as the receipts; the receipts themselves are the core's matter.
pub(super) fn check_signed(case: &Evidence, run_id: Digest, expected: &Expected) -> Result<(), Refused> {
    let (order, manifest, verdict) = (&case.order, &case.manifest.body, &case.verdict.body);
    same("run", expected.run, run_id)?;
    same("accused miner", expected.miner, order.miner)?;
    same("signer of the verdict", expected.validator, case.verdict.signer)?;
    same("signer of the manifest", expected.orchestrator, case.manifest.signer)?;
    signature("signature of the manifest", &case.manifest)?;
    signature("signature of the verdict", &case.verdict)?;
    same("run of the manifest", Some(run_id), manifest.run)?;
    same("run of the verdict", Some(run_id), verdict.run)?;
    same("accused of the verdict", Some(order.miner), verdict.miner)?;
    same("window of the verdict", Some(order.window), verdict.window)?;
    same("start of the verdict", Some(order.start.digest()), verdict.start)?;
    same("epoch of the manifest", Some(order.window.epoch), manifest.epoch)?;
    let record = manifest.stages.get(usize::from(order.stage));
    let weights = record.map_or("none of that stage".into(), |record| record.weights.digest.to_string());
    same("weights of the manifest", Some(order.weights), weights)
}

/// An object that the case names, and that must be there to decide it.
pub(super) fn object<'a>(parts: &'a Parts<'_>, object: &ObjectRef) -> Result<&'a [u8], Refused> {
    let ObjectRef { digest, bytes } = object;
    parts.objects.get(digest).map(AsRef::as_ref).ok_or_else(|| {
        let found = match &parts.case.verdict.body.finding {
            Finding::Withheld { digest: withheld } if withheld == digest => {
                "nothing; the verdict is that it was withheld, which no file can prove: ask the store for it"
            }
            _ => "nothing",
        };
        refused(format!("object {digest}"), format!("its {bytes} bytes"), found)
    })
}

fn replay(
    parts: &Parts<'_>,
    operations: Vec<Replay>,
    shard: Option<&TokenShard>,
) -> Result<Outcome, Refused> {
    let order = &parts.case.order;
    for named in order.objects() {
        object(parts, &named)?;
    }
    let (run, window) = (parts.run.clone(), order.window);
    let (stage, epoch, state) = (order.stage, window.epoch, order.state.digest);
    let weights = Some(order.weights).filter(|_| begins_epoch(order));
    let (miner, anchor) = (order.miner, order.merge.as_ref().map(|merge| merge.anchor.digest));
    let window = Window { run, stage, epoch, state, weights, miner, anchor, operations };
    let inside = parts
        .objects
        .get(&window.run.data.train)
        .map(|shard| TokenShard::from_bytes(shard.to_vec()))
        .transpose();
    let inside = inside.map_err(|error| refused("token shard", "one of this run", error))?;
    let data = inside.as_ref().or(shard);
    check_shard(parts, data)?;
    // What a stranger's file makes the engine stumble over is a bug of ours, and convicts nobody.
    let replayed = catch_unwind(AssertUnwindSafe(|| {
        perform(&window, data, &Device::Cpu, |digest| parts.objects.get(digest))
    }));
    let (results, stopped) = replayed
        .map_err(|_| refused("replay", "a result", "a panic of the engine, which is a bug"))?
        .map_err(|trouble| {
            refused(format!("object {}", trouble.digest), "one to replay from", trouble.why)
        })?;
    let finding = compare(&order.receipts, &results, stopped.as_deref());
    Ok(match finding {
        Finding::Equal { operations } => Outcome::NotProven { operations },
        finding => {
            let said = order.receipts.iter().find(
                |receipt| matches!(&finding, Finding::Unequal { sequence, .. } if receipt.body.sequence == *sequence),
            );
            let operation = said.map(|receipt| receipt.body.operation.to_string());
            Outcome::Convicted(Conviction { operation, finding })
        }
    })
}

/// Whether `shard` is the one that the window's stage reads, if it reads any.
fn check_shard(parts: &Parts<'_>, shard: Option<&TokenShard>) -> Result<(), Refused> {
    if !reads_tokens(&parts.run, parts.case.order.stage) {
        return Ok(());
    }
    let expected = parts.run.data.train;
    let found =
        shard.map_or("nothing: hand it in with --shard FILE".into(), |shard| shard.digest().to_string());
    if found == expected.to_string() { Ok(()) } else { Err(refused("token shard", expected, found)) }
}
