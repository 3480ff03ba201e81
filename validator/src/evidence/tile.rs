//! Evidence of one tile: of the first op of a window whose output the accused signed wrong, in a trace that it signed
//! itself.
//!
//! The contradiction is the accused's own: its trace says what the op read and what it gave, and the tile shows that this is
//! not what the op gives of that. Why there is always such an op, `docs/decisions/011` says.

use super::case::{decode, run_of, signature};
use super::file::{Packed, Section, Sections};
use super::revealed::{Revealed, Traced, check_values, untraceable};
use super::verify::check_signed;
use super::{Expected, Objects, Parts, Refused, refused};
use engine::trace::{self, Difference, Opening, Program, Source, Sources, Window, slices};
use spec::{Digest, NodeId, Run};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use validator_core::check;
use wire::{AuditOrder, Evidence, Finding, ObjectRef, Receipt, Signed, TileEvidence, Trace};

/// Magic of a file of this kind.
pub const MAGIC: [u8; 4] = *b"IET1";

/// What such a file is about, and whether it proves it.
#[derive(Debug, Clone, PartialEq)]
pub struct TileReport {
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
    /// The operation that the op belongs to, and the number of its receipt.
    pub operation: (String, u64),
    /// Ops of the window up to there.
    pub ops: usize,
    /// The first value that is wrong; `None` if nothing is proven.
    pub difference: Option<Difference>,
}

/// A case and what its receipts bind: what both sides have, whoever accuses and the accused.
#[derive(Debug, Clone, Copy)]
pub struct Matter<'a> {
    /// The run.
    pub run: &'a Run,
    /// What was signed and found.
    pub case: &'a Evidence,
    /// The objects that the case names.
    pub objects: &'a Objects<'a>,
    /// The training shard, for a stage that reads it.
    pub shard: &'a [u8],
}

/// An output that a trace has wrong though all before are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// Which, by its number among all.
    pub value: u32,
    /// What was signed of it: the accused is asked for the bytes.
    pub output: Digest,
    /// How many they are.
    pub bytes: u64,
}

impl<'a> Matter<'a> {
    /// The matter of an evidence file that was taken apart; `shard` is the training shard where it does not travel inside.
    pub fn of(parts: &'a Parts<'a>, shard: &'a [u8]) -> Self {
        let inside = parts.objects.get(&parts.run.data.train).map(AsRef::as_ref);
        Self { run: &parts.run, case: &parts.case, objects: &parts.objects, shard: inside.unwrap_or(shard) }
    }

    /// The accused's side: what it says of every op up to the receipt that the verdict calls wrong, by performing the window as it
    /// did; its key signs it. Outputs in `keep` are there to be shown.
    ///
    /// # Errors
    /// The verdict names no receipt, or the window has no trace.
    pub fn answer(
        &self,
        keep: BTreeSet<u32>,
        performer: &mut trace::Performer<'_>,
    ) -> Result<(Trace, trace::Trace), Refused> {
        let order = &self.case.order;
        let wrong = |receipt: &&Signed<Receipt>| match &self.case.verdict.body.finding {
            Finding::Unequal { sequence, .. } => receipt.body.sequence == *sequence,
            _ => false,
        };
        let named = order.receipts.iter().find(wrong);
        let named =
            named.ok_or_else(|| refused("verdict", "a receipt that is wrong", "none: the window decides"))?;
        let performed = self.revealed().answer(&named.digest(), keep, performer)?;
        Ok((Trace::of(self.run.id(), named.digest(), &performed.digests).0, performed))
    }

    fn revealed(&self) -> Revealed<'a> {
        Revealed { run: self.run, order: &self.case.order, objects: self.objects, shard: self.shard }
    }

    /// The first output that the trace has wrong, `digests` being what it says.
    ///
    /// # Errors
    /// The trace is not one of this window by its miner, or has nothing wrong: the case is decided by the whole window.
    pub fn doubt(&self, trace: &Signed<Trace>, digests: &[Digest]) -> Result<Doubt, Refused> {
        let order = &self.case.order;
        check_trace(self.run, order, trace)?;
        if Trace::of(trace.body.run, trace.body.receipt, digests).0 != trace.body {
            return Err(refused("trace", "the digests that were signed", "others"));
        }
        let traced = Traced::of(order, &trace.body.receipt)?;
        let mine = self.revealed().perform(&traced, BTreeSet::new())?;
        if mine.program.values() != trace.body.values {
            return Err(refused("outputs of the trace", mine.program.values(), trace.body.values));
        }
        let value = trace::first_difference(&mine.program, &traced.said, &mine.digests, digests);
        let value = value.ok_or_else(|| refused("trace", "an output that is wrong", "none"))?;
        let (at, output) = mine.program.maker(value).unwrap_or_default();
        let op = &mine.program.ops[at];
        let signed = traced.said[op.operation as usize].bound(&op.kind).unwrap_or(digests[value as usize]);
        Ok(Doubt { value, output: signed, bytes: op.outputs[output] })
    }

    /// The evidence file, once the accused has shown the output that is in doubt.
    ///
    /// # Errors
    /// The output is not the one that was signed, or nothing in it is wrong.
    pub fn file(
        &self,
        trace: &Signed<Trace>,
        digests: &[Digest],
        doubt: &Doubt,
        output: &[u8],
    ) -> Result<Vec<u8>, Refused> {
        let found = (Digest::of(output), output.len() as u64);
        if found != (doubt.output, doubt.bytes) {
            let bytes = |(digest, bytes): (Digest, u64)| format!("{digest} of {bytes} bytes");
            return Err(refused("output shown", bytes((doubt.output, doubt.bytes)), bytes(found)));
        }
        let traced = Traced::of(&self.case.order, &trace.body.receipt)?;
        let mine = self.revealed().perform(&traced, BTreeSet::from([doubt.value]))?;
        let honest = mine.kept.get(&doubt.value).map(Vec::as_slice).unwrap_or_default();
        let tile = trace::first_tile(&mine.program, doubt.value, output, honest);
        let tile = tile.ok_or_else(|| refused("output shown", "a value that is wrong", "none"))?;
        self.opened(trace, digests, (doubt.value, tile), output)
    }

    /// The evidence file of one tile of an output, as it was shown; whatever it proves.
    ///
    /// # Errors
    /// There is no such tile, or something that it takes is missing.
    pub fn opened(
        &self,
        trace: &Signed<Trace>,
        digests: &[Digest],
        (value, tile): (u32, u32),
        output: &[u8],
    ) -> Result<Vec<u8>, Refused> {
        let sections = self.opened_sections(trace, digests, (value, tile), output)?;
        let case = TileEvidence { evidence: self.case.clone(), trace: trace.clone(), value, tile };
        let sections = sections.iter().map(|section| (ObjectRef::of(section), &section[..])).collect();
        Ok(Packed::new(MAGIC, &wire::to_bytes(&case), sections).to_bytes())
    }

    /// The sections of [`Matter::opened`] that follow the case.
    ///
    /// # Errors
    /// As [`Matter::opened`].
    pub fn opened_sections(
        &self,
        trace: &Signed<Trace>,
        digests: &[Digest],
        (value, tile): (u32, u32),
        output: &[u8],
    ) -> Result<Vec<Vec<u8>>, Refused> {
        let order = &self.case.order;
        let traced = Traced::of(order, &trace.body.receipt)?;
        let window = traced.window(self.run, order);
        let revealed = self.revealed();
        let (inputs, state) = (revealed.inputs(&traced)?, revealed.object(&order.state.digest)?);
        let head = head(&window)?;
        let before = state.get(..head as usize).unwrap_or_default();
        let program = trace::derive(&window, before).map_err(untraceable)?;
        // All that the op reads.
        let wanted = trace::leaves(&program, value);
        let mine = self.revealed().perform(&traced, wanted.clone())?;
        let mut values: BTreeMap<u32, &[u8]> =
            mine.kept.iter().map(|(value, bytes)| (*value, &bytes[..])).collect();
        values.insert(value, output);
        let sources = Sources { state, inputs: &inputs, shard: self.shard, values };
        let opening = trace::open(&window, &program, (value, tile), |source| sources.get(source));
        let opening = opening.map_err(|error| refused("tile", "one that opens", error))?;
        let (_, leaves) = Trace::of(self.run.id(), trace.body.receipt, digests);
        let places = slices::merged(wanted.into_iter().map(leaf).collect());
        let mut sections =
            vec![slices::open(state, std::slice::from_ref(&(0..head))), slices::open(&leaves, &places)];
        sections.extend(opening.proofs);
        Ok(sections)
    }
}

/// Where a digest lies among the leaves.
fn leaf(value: u32) -> std::ops::Range<u64> {
    32 * u64::from(value)..32 * (u64::from(value) + 1)
}

fn head(window: &Window<'_>) -> Result<u64, Refused> {
    let parameters = window.run.model.stage_parameters(window.stage);
    let head = trace::head_bytes(window, parameters).filter(|head| *head <= HEAD_BYTES_MAX);
    head.ok_or_else(|| refused("state", "a file of this stage's length", format!("{} bytes", window.state.1)))
}

/// A state file's head says name and shape of some tensors: a few kilobytes for most stages.
const HEAD_BYTES_MAX: u64 = 64 << 20;

fn check_trace(run: &Run, order: &AuditOrder, trace: &Signed<Trace>) -> Result<(), Refused> {
    if trace.signer != order.miner {
        return Err(refused("signer of the trace", order.miner, trace.signer));
    }
    signature("signature of the trace", trace)?;
    if trace.body.run != run.id() {
        return Err(refused("run of the trace", run.id(), trace.body.run));
    }
    check_values(run, order, trace.body.values)
}

/// Decides a file of this kind.
///
/// # Errors
/// Evidence that proves nothing about anybody.
pub fn verify(bytes: &[u8], expected: &Expected) -> Result<TileReport, Refused> {
    let mut sections = Sections::of(bytes, MAGIC)?;
    let first = sections.case()?;
    let case: TileEvidence = decode(&first.plain)?;
    let sections = sections.short()?;
    let run = run_of(&case.evidence.run)?;
    let run_id = run.id();
    check_signed(&case.evidence, run_id, expected)?;
    let order = &case.evidence.order;
    check(&run, run_id, order)
        .map_err(|why| refused("receipts", "one window of the accused, signed and unbroken", why))?;
    check_trace(&run, order, &case.trace)?;
    let traced = Traced::of(order, &case.trace.body.receipt)?;
    let window = traced.window(&run, order);
    // What a stranger's file makes the engine stumble over is a bug of ours, and convicts nobody.
    let decided = catch_unwind(AssertUnwindSafe(|| decide(&window, &case, &sections)));
    let (difference, program) =
        decided.map_err(|_| refused("tile", "a result", "a panic of the engine, which is a bug"))??;
    let (at, _) = program.maker(case.value).unwrap_or_default();
    let receipt = &order.receipts[program.ops[at].operation as usize].body;
    Ok(TileReport {
        evidence: first.object.digest,
        miner: order.miner,
        stage: order.stage,
        window: order.window,
        validator: case.evidence.verdict.signer,
        operation: (receipt.operation.to_string(), receipt.sequence),
        ops: program.ops.len(),
        difference,
        run,
    })
}

fn decide(
    window: &Window<'_>,
    case: &TileEvidence,
    sections: &[Section<'_>],
) -> Result<(Option<Difference>, Program), Refused> {
    let trace = &case.trace.body;
    let [of_head, of_leaves, proofs @ ..] = sections else {
        return Err(refused("sections", "the state's head, the trace's leaves and a tile", sections.len()));
    };
    let head = head(window)?;
    let wanted = 0..head;
    let (digest, bytes) = window.state;
    let opened = slices::check(&digest, bytes, std::slice::from_ref(&wanted), &of_head.plain);
    let opened =
        opened.ok_or_else(|| refused("head of the state", "one that opens against its digest", "another"))?;
    let program = trace::derive(window, opened.get(wanted).unwrap_or_default()).map_err(untraceable)?;
    if program.values() != trace.values {
        return Err(refused("outputs of the trace", program.values(), trace.values));
    }
    let wanted = slices::merged(trace::leaves(&program, case.value).into_iter().map(leaf).collect());
    let leaves = slices::check(&trace.root, 32 * u64::from(trace.values), &wanted, &of_leaves.plain);
    let leaves =
        leaves.ok_or_else(|| refused("leaves of the trace", "ones that open against its root", "others"))?;
    let digest = |source: Source| match source {
        Source::Shard => Some(window.run.data.train),
        Source::State => Some(window.state.0),
        Source::Payload(operation) => window.said.get(operation as usize)?.input,
        Source::Zeros => None,
        Source::Value(value) => {
            let op = &program.ops[program.maker(value)?.0];
            let said = window.said.get(op.operation as usize)?;
            // What a receipt has the digest of, the trace does not say again.
            if op.kind.is_bound() {
                return said.bound(&op.kind);
            }
            leaves.get(leaf(value)).and_then(|bytes| bytes.try_into().ok()).map(Digest)
        }
    };
    let proofs = proofs.iter().map(|section| section.plain.to_vec()).collect();
    let opening = Opening { value: case.value, tile: case.tile, proofs };
    let found = trace::check(window, &program, &opening, digest);
    let difference = found.map_err(|error| refused("tile", "one of the trace that opens", error))?;
    Ok((difference, program))
}

/// Magic of a trace as a file.
const TRACE_MAGIC: [u8; 4] = *b"ITR1";

/// A signed trace and its digests as one file.
pub fn trace_file(trace: &Signed<Trace>, digests: &[Digest]) -> Vec<u8> {
    let signed = trace.to_bytes();
    let length = u32::try_from(signed.len()).unwrap_or(u32::MAX).to_le_bytes();
    [&TRACE_MAGIC[..], &length, &signed, &digests.iter().flat_map(|digest| digest.0).collect::<Vec<u8>>()]
        .concat()
}

/// What [`trace_file`] wrote.
///
/// # Errors
/// The bytes are none.
pub fn read_trace(file: &[u8]) -> Result<(Signed<Trace>, Vec<Digest>), Refused> {
    let bad = || {
        refused("trace", "a signed statement and the digests that it counts", format!("{} bytes", file.len()))
    };
    let rest = file.strip_prefix(&TRACE_MAGIC).ok_or_else(bad)?;
    let (length, rest) = rest.split_first_chunk().ok_or_else(bad)?;
    let (signed, leaves) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(bad)?;
    let (signed, after) = postcard::take_from_bytes::<Signed<Trace>>(signed).map_err(|_| bad())?;
    let digests = read_digests(&signed.body, leaves)?;
    if after.is_empty() { Ok((signed, digests)) } else { Err(bad()) }
}

/// The digests that a trace counts, from the file of them.
///
/// # Errors
/// They are others than those that were signed for, or not as many.
pub fn read_digests(trace: &Trace, file: &[u8]) -> Result<Vec<Digest>, Refused> {
    let (digests, odd) = file.as_chunks::<32>();
    if !odd.is_empty() || digests.len() as u64 != u64::from(trace.values) {
        let expected = format!("{} digests", trace.values);
        return Err(refused("digests of the trace", expected, format!("{} bytes", file.len())));
    }
    Ok(digests.iter().copied().map(Digest).collect())
}
