//! Evidence that an owner signed a wrong sum of a merge: its receipt, what it added up, and the pieces.

use super::case::{decode, run_of, same, signature};
use super::file::{Objects, Sections, by_digest, check_named};
use super::{Expected, Refused, refused};
use crate::sums::add_up;
use spec::{Digest, NodeId};
use validator_core::{Objection, check_merge};
use wire::{MergeEvidence, ObjectRef};

/// Magic of a file of this kind.
pub const MAGIC: [u8; 4] = *b"IEM1";

/// What such a file is about, and whether it proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SumReport {
    /// BLAKE3 of the case: the evidence's name.
    pub evidence: Digest,
    /// The run's id, and its name.
    pub run: (Digest, String),
    /// The accused.
    pub miner: NodeId,
    /// Its stage.
    pub stage: u16,
    /// The epoch that was merged.
    pub epoch: u32,
    /// Which shard.
    pub shard: u32,
    /// The validator who signed the verdict.
    pub validator: NodeId,
    /// The sum that the accused signed, and that of the pieces; the same where nothing is proven.
    pub claimed: Digest,
    /// What the pieces add up to.
    pub found: Digest,
}

/// The objects of a case given as its canonical bytes; `None` if it is no case of this kind.
pub fn needed(case: &[u8]) -> Option<Vec<ObjectRef>> {
    decode::<MergeEvidence>(case).ok().map(|case| case.order.pieces)
}

/// What the verdict of such a case says that the pieces add up to, if they open; `None` if it is no case of this kind.
pub fn said(case: &[u8]) -> Option<Option<Digest>> {
    decode::<MergeEvidence>(case).ok().map(|case| case.verdict.body.sum)
}

/// Decides a file of this kind.
///
/// # Errors
/// Evidence that proves nothing about anybody.
pub fn verify(bytes: &[u8], expected: &Expected) -> Result<SumReport, Refused> {
    let mut sections = Sections::of(bytes, MAGIC)?;
    let first = sections.case()?;
    let case: MergeEvidence = decode(&first.plain)?;
    judge(&case, first.object.digest, sections.objects(&case.order.pieces)?, expected)
}

/// Decides a case given as its canonical bytes, with those of its pieces that there are.
///
/// # Errors
/// As [`verify`].
pub fn decide<B: AsRef<[u8]>>(case: &[u8], pieces: &[B], expected: &Expected) -> Result<SumReport, Refused> {
    let decoded: MergeEvidence = decode(case)?;
    let pieces = by_digest(check_named(&decoded.order.pieces, pieces)?);
    judge(&decoded, Digest::of(case), pieces, expected)
}

fn judge(
    case: &MergeEvidence,
    evidence: Digest,
    pieces: Objects<'_>,
    expected: &Expected,
) -> Result<SumReport, Refused> {
    let run = run_of(&case.run)?;
    let run_id = run.id();
    let (order, verdict) = (&case.order, &case.verdict);
    same("run", expected.run, run_id)?;
    same("accused miner", expected.miner, case.accused)?;
    same("signer of the verdict", expected.validator, verdict.signer)?;
    same("run of the verdict", Some(run_id), verdict.body.run)?;
    signature("signature of the verdict", verdict)?;
    let of = (verdict.body.stage, verdict.body.epoch, verdict.body.shard);
    if of != (order.stage, order.epoch, order.shard) {
        return Err(refused("verdict", "one on the shard of the order", format!("{of:?}")));
    }
    let addition = check_merge(&run, run_id, order).map_err(|objection| {
        let (Objection::Order(why) | Objection::Miner(why)) = objection;
        refused("receipts", "those of one shard of a merge", why)
    })?;
    let claim = order.claims.iter().find(|claim| claim.signer == case.accused);
    let claimed = claim.and_then(|claim| claim.body.output);
    let claimed = claimed.ok_or_else(|| refused("receipts", "a sum signed by the accused", "none"))?;
    let missing = |object: &ObjectRef| {
        refused(format!("object {}", object.digest), format!("its {} bytes", object.bytes), "nothing")
    };
    let piece = |object: &ObjectRef| pieces.get(&object.digest).ok_or_else(|| missing(object));
    let pieces = order.pieces.iter().map(piece).collect::<Result<Vec<_>, _>>()?;
    let found = add_up(&run, order.stage, &addition, &pieces);
    let found =
        found.ok_or_else(|| refused("pieces", "ones that open against their roots", "one that does not"))?;
    Ok(SumReport {
        evidence,
        run: (run_id, run.name),
        miner: case.accused,
        stage: order.stage,
        epoch: order.epoch,
        shard: order.shard,
        validator: verdict.signer,
        claimed,
        found,
    })
}
