//! Evidence that an owner signed a wrong sum of a merge: its receipt, what it added up, and the pieces.

use super::file::{self, Section};
use super::{Refused, refused};
use crate::sums::add_up;
use spec::{Digest, NodeId, Run};
use std::collections::BTreeMap;
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
    Some(decode(case)?.order.pieces)
}

fn decode(case: &[u8]) -> Option<MergeEvidence> {
    let (decoded, _) = postcard::take_from_bytes::<MergeEvidence>(case).ok()?;
    // Two spellings of one case would have two names.
    (wire::to_bytes(&decoded) == case).then_some(decoded)
}

/// Decides a file of this kind.
///
/// # Errors
/// Evidence that proves nothing about anybody.
pub fn verify(bytes: &[u8], expected: &super::Expected) -> Result<SumReport, Refused> {
    let (first, sections) = file::sections(bytes, MAGIC)?;
    let bad = || refused("case", "the canonical bytes of one case", "something else");
    let case = decode(&first.plain).ok_or_else(bad)?;
    let run = file::run_of(&case.run)?;
    let run_id = run.id();
    let (order, verdict) = (&case.order, &case.verdict);
    for (field, expected, found) in [
        ("run", expected.run.map(|run| run.to_string()), run_id.to_string()),
        ("accused miner", expected.miner.map(|key| key.to_string()), case.accused.to_string()),
        ("signer of the verdict", expected.validator.map(|key| key.to_string()), verdict.signer.to_string()),
        ("run of the verdict", Some(run_id.to_string()), verdict.body.run.to_string()),
    ] {
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(refused(field, expected, found));
        }
    }
    if verdict.verify().is_err() {
        return Err(refused(
            "signature of the verdict",
            format!("one by {}", verdict.signer),
            "one that does not hold",
        ));
    }
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
    let pieces = pieces(&case, sections)?;
    let found = add_up(&run, order.stage, &addition, &pieces);
    let found =
        found.ok_or_else(|| refused("pieces", "ones that open against their roots", "one that does not"))?;
    Ok(SumReport {
        evidence: first.object.digest,
        run: (run_id, name(&run)),
        miner: case.accused,
        stage: order.stage,
        epoch: order.epoch,
        shard: order.shard,
        validator: verdict.signer,
        claimed,
        found,
    })
}

fn name(run: &Run) -> String {
    run.name.clone()
}

fn pieces(case: &MergeEvidence, sections: Vec<Section>) -> Result<Vec<Vec<u8>>, Refused> {
    let mut there: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
    for Section { object, plain } in sections {
        if !case.order.pieces.contains(&object) {
            return Err(refused(
                format!("object {}", object.digest),
                "an object that the case names",
                "one that it does not",
            ));
        }
        there.insert(object.digest, plain);
    }
    let piece = |object: &ObjectRef| {
        let missing =
            || refused(format!("object {}", object.digest), format!("its {} bytes", object.bytes), "nothing");
        there.get(&object.digest).cloned().ok_or_else(missing)
    };
    case.order.pieces.iter().map(piece).collect()
}
