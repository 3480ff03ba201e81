//! Evidence of one tile of an honest step: a file that is taken, and proves nothing.

use anyhow::{Result, anyhow};
use engine::StageState;
use engine::data::{TokenShard, Width, shard_bytes};
use spec::{Digest, Member, Operation, Run, Window};
use std::collections::BTreeMap;
use validator::evidence::tile::{MAGIC, Matter, trace_file};
use wire::{
    AuditOrder, Chain, Evidence, Finding, Key, Manifest, ObjectRef, Receipt, Signed, TileEvidence, Trace,
    Verdict,
};

/// The case and the proofs of such a file.
pub fn sections() -> Result<Vec<Vec<u8>>> {
    let shard = shard_bytes(&(0..300u32).map(|token| token % 251).collect::<Vec<_>>(), Width::One)?;
    let data = TokenShard::from_bytes(shard.clone())?;
    let mut run = Run::from_toml(include_str!("../../engine/spec/tests/tiny.toml"))?;
    run.model.stages = vec![1];
    (run.data.train, run.data.train_tokens) = (data.digest(), data.count());
    (run.inner.members, run.epoch.digest_every) = (1, 1);
    let key = Key::from_seed([5; 32]);
    let (receipts, state) = step(&run, &data, &key)?;
    let weights = ObjectRef::of(b"weights");
    let order = AuditOrder {
        miner: key.id(),
        stage: 0,
        window: Window { epoch: 0, step: 0 },
        weights: weights.digest,
        state: ObjectRef::of(&state),
        start: receipts[0].clone(),
        receipts,
        inputs: vec![],
        merge: None,
    };
    // As if its last receipt were wrong.
    let sequence = order.receipts.last().map_or(0, |receipt| receipt.body.sequence);
    let finding =
        Finding::Unequal { sequence, what: "state".into(), expected: "a".into(), found: "b".into() };
    let verdict = Verdict {
        run: run.id(),
        miner: key.id(),
        window: order.window,
        start: order.start.digest(),
        finding,
    };
    let case = Evidence {
        run: run.canonical_bytes(),
        manifest: Signed::new(Manifest::first(run.id(), &[weights]), &key),
        order,
        verdict: Signed::new(verdict, &key),
    };
    let objects = BTreeMap::from([(Digest::of(&state), state.into())]);
    let matter = Matter { run: &run, case: &case, objects: &objects, shard: &shard };
    let refused = |error: validator::evidence::Refused| anyhow!("{error}");
    let (body, mut performed) = matter.answer([0].into(), &mut engine::perform).map_err(refused)?;
    let output = performed.kept.remove(&0).unwrap_or_default();
    let trace = Signed::new(body, &key);
    let opened = matter.opened_sections(&trace, &performed.digests, (0, 0), &output).map_err(refused)?;
    let case = TileEvidence { evidence: case.clone(), trace, value: 0, tile: 0 };
    Ok([vec![wire::to_bytes(&case)], opened].concat())
}

/// One member forward and back, and the step; and the state before.
fn step(run: &Run, data: &TokenShard, key: &Key) -> Result<(Vec<Signed<Receipt>>, Vec<u8>)> {
    let mut state = StageState::initial(run, 0)?;
    let before = state.state_bytes()?;
    let member = Member { assignment: 0, attempt: 0, step: 0, position: 0, microbatch: 0 };
    let mut chain = Chain::default();
    let mut receipts = vec![];
    for operation in [
        Operation::Forward(member),
        Operation::Backward(member),
        Operation::Step { step: 0, members: vec![member] },
    ] {
        let done = engine::perform(&mut state, Some(data), 0, &operation, &[])?;
        let bound = match operation {
            Operation::Forward(_) => Some(Digest::of(&before)),
            Operation::Backward(_) => None,
            _ => Some(state.state_digest()?),
        };
        let body = Receipt {
            run: run.id(),
            mode: run.mode,
            epoch: 0,
            sequence: chain.next,
            previous: chain.last,
            stage: 0,
            operation,
            state: bound,
            input_receipt: None,
            input: None,
            output: done.output_digest,
            loss_q32: done.loss_q32,
            outcome: done.outcome,
        };
        chain = Chain::after(&body);
        receipts.push(Signed::new(body, key));
    }
    Ok((receipts, before))
}

/// A file of these sections, whose table is right.
pub fn file(sections: &[Vec<u8>]) -> Vec<u8> {
    let line = |plain: &Vec<u8>| {
        let length = (plain.len() as u64).to_le_bytes();
        [&Digest::of(plain).0[..], &length, &length].concat()
    };
    let table: Vec<u8> = sections.iter().flat_map(line).collect();
    [&MAGIC[..], &(sections.len() as u32).to_le_bytes(), &table, &sections.concat()].concat()
}

/// A signed trace with three digests.
pub fn trace() -> Vec<u8> {
    let digests = [1, 2, 3].map(|byte| Digest([byte; 32]));
    let (body, _) = Trace::of(Digest([8; 32]), Digest([9; 32]), &digests);
    trace_file(&Signed::new(body, &Key::from_seed([5; 32])), &digests)
}
