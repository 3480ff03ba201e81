//! Evidence of one tile: every lie inside an operation by a real adversary, a lie in whichever op the accused likes, honest
//! work, and all that can be wrong with such a file.

#![allow(clippy::unwrap_used)] // a trial that cannot go on has failed

use engine::data::{TextTokenizer, TokenShard, Width, shard_bytes};
use engine::state::StageState;
use engine::trace::{self, Said};
use engine::{Device, Done};
use miner::Adversary;
use spec::{Digest, Member, Operation, Run, Window};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;
use validator::evidence::tile::{self, MAGIC, Matter};
use validator::evidence::{self, Expected, Objects, Revealed};
use wire::{
    AuditOrder, Chain, Evidence, Finding, Key, Manifest, ObjectRef, Receipt, Signed, TileEvidence, Trace,
    Verdict,
};

/// The window's first step.
const STEP: u32 = 2;

fn tokens() -> Vec<u8> {
    let text = "the quick brown fox jumps over the lazy dog; ".repeat(100);
    shard_bytes(&TextTokenizer::bytes().encode(&text).unwrap(), Width::One).unwrap()
}

fn run(dim: u32, context: u32) -> Run {
    let shard = TokenShard::from_bytes(tokens()).unwrap();
    let mut run = Run::from_toml(include_str!("../../engine/spec/tests/tiny.toml")).unwrap();
    (run.model.dim, run.model.ffn, run.model.context) = (dim, dim * 8 / 3 / 8 * 8, context);
    (run.model.heads, run.model.kv_heads, run.model.stages) = (4, 2, vec![1, 1, 1]);
    (run.data.train, run.data.train_tokens) = (shard.digest(), shard.count());
    (run.epoch.steps, run.epoch.digest_every, run.inner.members) = (4, 2, 2);
    run.check().unwrap();
    run
}

/// What one stage did in a window.
#[derive(Clone)]
struct Work {
    run: Run,
    stage: usize,
    state: Vec<u8>,
    operations: Vec<Operation>,
    inputs: Vec<Vec<u8>>,
}

/// The windows of all stages, honestly.
fn honest(run: &Run) -> Vec<Work> {
    let shard = TokenShard::from_bytes(tokens()).unwrap();
    let stages = run.model.stage_count();
    let mut states: Vec<StageState> =
        (0..stages).map(|stage| StageState::initial(run, stage).unwrap()).collect();
    let mut works: Vec<Work> = Vec::new();
    for step in 0..STEP + run.epoch.digest_every {
        if step == STEP {
            works = (0..stages)
                .map(|stage| Work {
                    run: run.clone(),
                    stage,
                    state: states[stage].state_bytes().unwrap(),
                    operations: vec![],
                    inputs: vec![],
                })
                .collect();
        }
        let mut act = |stage: usize, operation: Operation, input: Option<Vec<u8>>| {
            let done =
                engine::perform(&mut states[stage], Some(&shard), 0, &operation, input.as_deref().as_slice());
            if let Some(work) = works.get_mut(stage) {
                work.operations.push(operation);
                work.inputs.push(input.unwrap_or_default());
            }
            done.unwrap().output
        };
        let members = |step: u32| -> Vec<Member> {
            let member = |position: u16| {
                let microbatch = u64::from(step) * u64::from(run.inner.members) + u64::from(position);
                Member { assignment: microbatch, attempt: 0, step, position, microbatch }
            };
            (0..run.inner.members).map(member).collect()
        };
        // What may run ahead does.
        let mut forward = if run.is_stale(step) { vec![] } else { members(step) };
        if run.is_stale(step + 1) {
            forward.extend(members(step + 1));
        }
        for member in forward {
            (0..stages).fold(None, |payload, stage| act(stage, Operation::Forward(member), payload));
        }
        for member in members(step) {
            (0..stages).rev().fold(None, |payload, stage| act(stage, Operation::Backward(member), payload));
        }
        for stage in 0..stages {
            act(stage, Operation::Step { step, members: members(step) }, None);
        }
    }
    works
}

type Performer<'a> = &'a mut trace::Performer<'a>;

impl Work {
    /// What somebody signs of the window.
    fn said(&self, performer: Performer<'_>) -> Vec<Said> {
        let shard = TokenShard::from_bytes(tokens()).unwrap();
        let mut state = StageState::from_state(&self.run, self.stage, &self.state).unwrap();
        let one = |(operation, input): (&Operation, &Vec<u8>)| {
            let input = Some(&input[..]).filter(|input| !input.is_empty());
            let done: Done = performer(&mut state, Some(&shard), 0, operation, input.as_slice()).unwrap();
            let ends = matches!(operation, Operation::Step { step, .. } if self.run.digests_after(*step));
            Said {
                operation: operation.clone(),
                input: input.map(Digest::of),
                output: done.output_digest,
                loss_q32: done.loss_q32,
                state: ends.then(|| state.state_digest().unwrap()),
                outcome: done.outcome,
            }
        };
        self.operations.iter().zip(&self.inputs).map(one).collect()
    }

    fn case(&self, said: &[Said], miner: &Key) -> Evidence {
        let mut chain = Chain { next: 7, last: Digest([4; 32]) };
        let mut sign = |said: &Said| {
            let body = Receipt {
                run: self.run.id(),
                mode: self.run.mode,
                epoch: 0,
                sequence: chain.next,
                previous: chain.last,
                stage: self.stage as u16,
                operation: said.operation.clone(),
                state: said.state,
                input_receipt: said.input.map(|_| Digest([5; 32])),
                input: said.input,
                output: said.output,
                loss_q32: said.loss_q32,
                outcome: said.outcome,
            };
            chain = Chain::after(&body);
            Signed::new(body, miner)
        };
        let before = Said {
            operation: Operation::Step { step: STEP - 1, members: vec![] },
            input: None,
            output: None,
            loss_q32: None,
            state: Some(Digest::of(&self.state)),
            outcome: spec::Outcome::Ok,
        };
        let (start, receipts) = (sign(&before), said.iter().map(&mut sign).collect());
        let inputs: BTreeSet<_> = self.inputs.iter().filter(|bytes| !bytes.is_empty()).collect();
        let order = AuditOrder {
            miner: miner.id(),
            stage: self.stage as u16,
            window: Window { epoch: 0, step: STEP },
            weights: Digest::of(b"weights"),
            state: ObjectRef::of(&self.state),
            start,
            receipts,
            inputs: inputs.into_iter().map(|bytes| ObjectRef::of(bytes)).collect(),
            merge: None,
        };
        let weights = vec![ObjectRef::of(b"weights"); self.run.model.stage_count()];
        let finding = Finding::Inconsistent { why: "a trial".into() };
        let verdict = Verdict {
            run: self.run.id(),
            miner: miner.id(),
            window: order.window,
            start: order.start.digest(),
            finding,
        };
        Evidence {
            run: self.run.canonical_bytes(),
            manifest: Signed::new(Manifest::first(self.run.id(), &weights), &Key::from_seed([1; 32])),
            order,
            verdict: Signed::new(verdict, &Key::from_seed([12; 32])),
        }
    }

    fn objects(&self) -> Objects<'_> {
        let all = self.inputs.iter().chain([&self.state]).filter(|bytes| !bytes.is_empty());
        all.map(|bytes| (Digest::of(bytes), bytes.into())).collect()
    }

    /// The window's first receipts with somebody listening.
    fn traced(&self, said: &[Said], keep: BTreeSet<u32>, performer: Performer<'_>) -> trace::Trace {
        let state = (Digest::of(&self.state), self.state.len() as u64);
        let window = trace::Window { run: &self.run, stage: self.stage, epoch: 0, state, said };
        let inputs: Vec<&[u8]> = self.inputs.iter().map(Vec::as_slice).collect();
        let shard = TokenShard::from_bytes(tokens()).unwrap();
        trace::perform(&window, &self.state, Some(&shard), &inputs, &Device::Cpu, keep, performer).unwrap()
    }
}

fn key() -> Key {
    Key::from_seed([11; 32])
}

/// A signed trace up to receipt `last` of a case.
fn signed(case: &Evidence, last: usize, digests: &[Digest], key: &Key) -> Signed<Trace> {
    let receipt = case.order.receipts[last].digest();
    let run = case.order.receipts[last].body.run;
    Signed::new(Trace::of(run, receipt, digests).0, key)
}

fn verify(file: &[u8]) -> Result<tile::TileReport, evidence::Refused> {
    tile::verify(file, &Expected::default())
}

#[test]
fn every_lie_inside_an_operation_is_one_tile_of_one_op() {
    let payload = "encoding of a payload";
    let expected = [
        ("backward-bit", [None, Some(payload), Some(payload)]),
        ("copier", [None, Some(payload), None]),
        ("forward-bit", [Some(payload), Some(payload), None]),
        ("free-rider", [Some(payload); 3]),
        ("garbage", [Some(payload); 3]),
        ("label-tamperer", [Some("embedding"), None, Some("cross-entropy")]),
        ("lazy-precision", [Some("AdamW"); 3]),
        ("moments", [Some("AdamW"); 3]),
        ("poison", [Some(payload); 3]),
        ("sign-flipper", [None, Some(payload), Some(payload)]),
        ("stale-replayer", [Some(payload); 3]),
        ("step-bit", [Some("AdamW"); 3]),
    ];
    // Who is slow tells no lie.
    let liars = Adversary::ALL.into_iter().filter(|(name, _)| *name != "slow-loris").collect();
    assert_eq!(told(&run(136, 40), liars), expect(&expected));
}

/// On weights one step old. A step that flips a bit is not among it: nothing but the next step reads what it made, which flips the
/// bit back.
#[test]
fn a_lie_on_stale_weights_is_one_tile_too() {
    let mut stale = run(136, 40);
    stale.inner.staleness = 1;
    let payload = "encoding of a payload";
    let expected = [
        ("backward-bit", [None, Some(payload), Some(payload)]),
        ("forward-bit", [Some(payload), Some(payload), None]),
        ("label-tamperer", [Some("embedding"), None, Some("cross-entropy")]),
        ("lazy-precision", [Some("AdamW"); 3]),
    ];
    let named = |name: &str| expected.iter().any(|(wanted, _)| *wanted == name);
    let liars = Adversary::ALL.into_iter().filter(|(name, _)| named(name)).collect();
    assert_eq!(told(&stale, liars), expect(&expected));
}

/// By liar and stage: the op of which a tile is wrong.
type Told = BTreeMap<(&'static str, usize), &'static str>;

fn expect(of: &[(&'static str, [Option<&'static str>; 3])]) -> Told {
    let of_stages = |(name, ops): &(&'static str, [Option<&'static str>; 3])| {
        let name = *name;
        (0..).zip(*ops).filter_map(move |(stage, op)| Some(((name, stage), op?))).collect::<Vec<_>>()
    };
    of.iter().flat_map(of_stages).collect()
}

fn told(run: &Run, liars: Vec<(&'static str, Adversary)>) -> Told {
    let shard = tokens();
    let mut told = BTreeMap::new();
    for work in honest(run) {
        let right = work.said(&mut engine::perform);
        for &(name, adversary) in &liars {
            let said = work.said(&mut miner::performer(adversary));
            let Some(last) = said.iter().zip(&right).position(|(said, right)| said != right) else {
                continue;
            };
            let case = work.case(&said, &key());
            let objects = work.objects();
            let matter = Matter { run, case: &case, objects: &objects, shard: &shard };
            let theirs =
                work.traced(&said[..=last], BTreeSet::new(), &mut miner::performer(adversary)).digests;
            let trace = signed(&case, last, &theirs, &key());
            let doubt = matter.doubt(&trace, &theirs).unwrap();
            let keep = BTreeSet::from([doubt.value]);
            let shown = work.traced(&said[..=last], keep, &mut miner::performer(adversary)).kept;
            let file = matter.file(&trace, &theirs, &doubt, &shown[&doubt.value]).unwrap();
            let began = Instant::now();
            let report = verify(&file).unwrap();
            assert!(began.elapsed().as_secs() < 5);
            let difference = report.difference.unwrap();
            assert_ne!(difference.claimed, difference.found);
            assert_eq!(report.operation.1, 8 + difference.operation as u64);
            told.insert((name, work.stage), difference.op);
        }
    }
    told
}

/// The accused signs a trace with one wrong bit in whichever output it likes; its last one is wrong anyway.
#[test]
fn a_lie_is_found_in_whichever_op_the_accused_puts_it() {
    let (run, shard) = (run(136, 40), tokens());
    let mut kinds = BTreeSet::new();
    for work in honest(&run) {
        let mut said = work.said(&mut engine::perform);
        let last = said.len() - 1;
        said[last].state = Some(Digest::of(b"a state that nobody has"));
        let (case, objects) = (work.case(&said, &key()), work.objects());
        let matter = Matter { run: &run, case: &case, objects: &objects, shard: &shard };
        let all = (0..100_000).collect();
        let mine = work.traced(&said, all, &mut engine::perform);
        for op in &mine.program.ops {
            if op.kind.is_bound() || !kinds.insert(op.kind.name()) {
                continue;
            }
            let value = op.first + op.outputs.len() as u32 - 1;
            let mut output = mine.kept[&value].clone();
            let middle = output.len() / 2;
            output[middle] ^= 4;
            let mut theirs = mine.digests.clone();
            theirs[value as usize] = Digest::of(&output);
            // What comes after it can be anything.
            theirs[value as usize + 1..].fill(Digest([9; 32]));
            let trace = signed(&case, last, &theirs, &key());
            let doubt = matter.doubt(&trace, &theirs).unwrap();
            assert_eq!(
                (doubt.value, doubt.output, doubt.bytes),
                (value, Digest::of(&output), output.len() as u64)
            );
            let report = verify(&matter.file(&trace, &theirs, &doubt, &output).unwrap()).unwrap();
            let found = report.difference.unwrap();
            assert_eq!((found.op, found.output), (op.kind.name(), op.outputs.len() - 1));
            // Who shows another output than it signed shows nothing.
            output[middle] ^= 4;
            assert!(
                matter
                    .file(&trace, &theirs, &doubt, &output)
                    .unwrap_err()
                    .to_string()
                    .starts_with("output shown")
            );
        }
    }
    assert_eq!(kinds.len(), 19, "{kinds:?}");
}

/// The body of a model of some width, and a lie in its largest product.
#[test]
fn the_file_is_small_and_decided_in_seconds() {
    let (run, shard) = (run(512, 128), tokens());
    let work = honest(&run).swap_remove(1);
    let mut said = work.said(&mut engine::perform);
    let last = said.len() - 1;
    said[last].state = Some(Digest::of(b"a state that nobody has"));
    let (case, objects) = (work.case(&said, &key()), work.objects());
    let matter = Matter { run: &run, case: &case, objects: &objects, shard: &shard };
    let mine = work.traced(&said, BTreeSet::new(), &mut engine::perform);
    let is = |op: &&trace::Op, wanted: &str| op.kind.name() == wanted;
    let all: Vec<&[u8]> = objects.values().map(AsRef::as_ref).collect();
    let whole = evidence::pack(&wire::to_bytes(&case), &all).unwrap().len();
    let level1 = {
        let file = evidence::pack(&wire::to_bytes(&case), &all).unwrap();
        let began = Instant::now();
        evidence::verify(&file, None, &Expected::default()).unwrap();
        began.elapsed()
    };
    println!("| evidence | bytes | seconds to check |\n|---|---|---|");
    println!("| level 1: the window | {whole} | {:.3} |", level1.as_secs_f64());
    for wanted in
        ["product A B^T", "product A B", "product A^T B", "attention", "gradient of an attention", "AdamW"]
    {
        let value = mine.program.ops.iter().rfind(|op| is(op, wanted)).unwrap().first;
        let kept = work.traced(&said, BTreeSet::from([value]), &mut engine::perform).kept;
        let mut output = kept[&value].clone();
        output[1000] ^= 1;
        let mut theirs = mine.digests.clone();
        theirs[value as usize] = Digest::of(&output);
        let trace = signed(&case, last, &theirs, &key());
        let doubt = matter.doubt(&trace, &theirs).unwrap();
        let file = matter.file(&trace, &theirs, &doubt, &output).unwrap();
        let began = Instant::now();
        let found = verify(&file).unwrap().difference.unwrap();
        let took = began.elapsed();
        println!("| level 2: {wanted} | {} | {:.3} |", file.len(), took.as_secs_f64());
        assert_eq!(found.op, wanted);
        assert!(took.as_secs() < 5 && file.len() < whole / 4, "{wanted}: {took:?}, {} bytes", file.len());
    }
}

/// A lie, and the file that proves it.
fn proven() -> (Work, Evidence, Vec<Digest>, Vec<u8>) {
    let run = run(24, 12);
    let work = honest(&run).swap_remove(1);
    let lie = || miner::performer(Adversary::StepBit);
    let said = work.said(&mut lie());
    let right = work.said(&mut engine::perform);
    let last = said.iter().zip(&right).position(|(said, right)| said != right).unwrap();
    let (case, objects, shard) = (work.case(&said, &key()), work.objects(), tokens());
    let matter = Matter { run: &run, case: &case, objects: &objects, shard: &shard };
    let theirs = work.traced(&said[..=last], BTreeSet::new(), &mut lie()).digests;
    let trace = signed(&case, last, &theirs, &key());
    let doubt = matter.doubt(&trace, &theirs).unwrap();
    let shown = work.traced(&said[..=last], BTreeSet::from([doubt.value]), &mut lie()).kept;
    let file = matter.file(&trace, &theirs, &doubt, &shown[&doubt.value]).unwrap();
    (work, case, theirs, file)
}

/// A file's sections, plain.
fn sections(file: &[u8]) -> Vec<Vec<u8>> {
    let count = u32::from_le_bytes(file[4..8].try_into().unwrap()) as usize;
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap()) as usize;
    let mut at = 8 + 48 * count;
    let section = |line: &[u8]| {
        let (plain, packed) = (number(&line[32..40]), number(&line[40..]));
        let bytes = &file[at..at + packed];
        at += packed;
        if plain == packed { bytes.to_vec() } else { transport::pack::unpack(bytes, plain as u32).unwrap() }
    };
    file[8..8 + 48 * count].chunks_exact(48).map(section).collect()
}

/// A file of these sections, whose table is right.
fn file(sections: &[Vec<u8>]) -> Vec<u8> {
    let line = |plain: &Vec<u8>| {
        let length = (plain.len() as u64).to_le_bytes();
        [&Digest::of(plain).0[..], &length, &length].concat()
    };
    let table: Vec<u8> = sections.iter().flat_map(line).collect();
    [&MAGIC[..], &(sections.len() as u32).to_le_bytes(), &table, &sections.concat()].concat()
}

#[test]
fn what_is_spoilt_foreign_or_about_something_else_is_refused() {
    let (work, case, theirs, good) = proven();
    assert!(verify(&good).unwrap().difference.is_some());
    let plain = sections(&good);
    assert!(verify(&file(&plain)).unwrap().difference.is_some());
    let refusal = |file: &[u8]| verify(file).expect_err("must be refused").to_string();
    for length in (0..600).chain((600..good.len()).step_by(131)) {
        assert!(verify(&good[..length]).is_err(), "cut to {length}");
    }
    assert!(verify(&[&good[..], &[0]].concat()).is_err());
    let report = verify(&good).unwrap();
    for at in (0..good.len()).step_by(37) {
        let mut edited = good.clone();
        edited[at] ^= 1;
        // Packing has bits without a meaning; whatever has one is bound.
        assert!(verify(&edited).is_err() || verify(&edited).as_ref() == Ok(&report), "byte {at}");
    }
    // The table made to fit: the proofs themselves are judged.
    for section in 1..plain.len() {
        for at in [0, plain[section].len() / 2, plain[section].len() - 1] {
            let mut edited = plain.clone();
            edited[section][at] ^= 1;
            let said = refusal(&file(&edited));
            assert!(
                ["head of the state", "leaves of the trace", "tile"].iter().any(|of| said.starts_with(of)),
                "{said}"
            );
        }
        let mut short = plain.clone();
        short.remove(section);
        assert!(verify(&file(&short)).is_err());
        let mut double = plain.clone();
        double.insert(section, plain[section].clone());
        assert!(verify(&file(&double)).is_err());
    }
    let edited = |edit: &dyn Fn(&mut TileEvidence)| {
        let mut case: TileEvidence = postcard::from_bytes(&plain[0]).unwrap();
        edit(&mut case);
        let mut sections = plain.clone();
        sections[0] = wire::to_bytes(&case);
        refusal(&file(&sections))
    };
    let other = Key::from_seed([99; 32]);
    let said = edited(&|case| case.trace = Signed::new(case.trace.body, &other));
    assert!(said.starts_with("signer of the trace"), "{said}");
    let said = edited(&|case| case.trace.body.root = Digest([1; 32]));
    assert!(said.starts_with("signature of the trace"), "{said}");
    let said =
        edited(&|case| case.trace = Signed::new(Trace { run: Digest([1; 32]), ..case.trace.body }, &key()));
    assert!(said.starts_with("run of the trace"), "{said}");
    let said = edited(&|case| {
        case.trace = Signed::new(Trace { receipt: Digest([1; 32]), ..case.trace.body }, &key())
    });
    assert!(said.starts_with("trace: expected one up to a receipt"), "{said}");
    // A trace that is not the window's program.
    let said = edited(&|case| {
        case.trace = Signed::new(Trace { values: case.trace.body.values + 1, ..case.trace.body }, &key())
    });
    assert!(said.starts_with("outputs of the trace"), "{said}");
    let said =
        edited(&|case| case.trace = Signed::new(Trace { values: u32::MAX, ..case.trace.body }, &key()));
    assert!(said.starts_with("outputs of the trace: expected at most"), "{said}");
    // The opening of another op, another output, another tile.
    for value in [0, 1, 5, u32::MAX] {
        edited(&|case| case.value = value);
    }
    edited(&|case| case.value += 1);
    edited(&|case| case.tile += 1);
    let said = edited(&|case| {
        let mut run = work.run.clone();
        run.seed += 1;
        case.evidence.run = run.canonical_bytes();
    });
    assert!(said.starts_with("run of the manifest"), "{said}");
    let said = edited(&|case| case.evidence.order.receipts[0].body.output = None);
    assert!(said.starts_with("receipts"), "{said}");
    let run = Expected { run: Some(Digest([3; 32])), ..Expected::default() };
    assert!(tile::verify(&good, &run).unwrap_err().to_string().starts_with("run"));
    // Level 1 and level 2 are told apart.
    assert!(
        evidence::verify(&good, None, &Expected::default()).unwrap_err().to_string().starts_with("magic")
    );
    // Who accuses looks first.
    let (objects, shard) = (work.objects(), tokens());
    let matter = Matter { run: &work.run, case: &case, objects: &objects, shard: &shard };
    let short = signed(&case, 0, &theirs, &key());
    assert!(matter.doubt(&short, &theirs).unwrap_err().to_string().starts_with("outputs of the trace"));
    assert!(matter.doubt(&short, &theirs[1..]).unwrap_err().to_string().starts_with("trace"));
}

/// Whoever asks could make an honest miner sign what convicts it, if it performed on anything but what its own receipts bind.
#[test]
fn nobody_explains_a_window_that_its_own_receipts_do_not_bind() {
    let (run, shard) = (run(24, 12), tokens());
    let work = honest(&run).remove(1);
    let said = work.said(&mut engine::perform);
    let (case, objects) = (work.case(&said, &key()), work.objects());
    let receipt = case.order.receipts[2].digest();
    let answer = |order: &AuditOrder, receipt: &Digest| {
        let revealed = Revealed { run: &run, order, objects: &objects, shard: &shard };
        let answered = revealed.answer(receipt, BTreeSet::new(), &mut engine::perform);
        answered.map(|trace| trace.digests).map_err(|refused| refused.to_string())
    };
    let mine = work.traced(&said[..=2], BTreeSet::new(), &mut engine::perform).digests;
    assert_eq!(answer(&case.order, &receipt), Ok(mine.clone()));
    type Edit = fn(&mut AuditOrder);
    let edits: [Edit; 4] = [
        |order| order.state.digest = order.inputs[0].digest,
        |order| drop(order.receipts.remove(1)),
        |order| order.receipts[1].body.input = order.receipts[0].body.input,
        |order| {
            let body = order.receipts[0].body.clone();
            order.receipts[0] = Signed::new(body, &Key::from_seed([66; 32]));
        },
    ];
    for (number, edit) in edits.into_iter().enumerate() {
        let mut order = case.order.clone();
        edit(&mut order);
        let why = answer(&order, &receipt).unwrap_err();
        assert!(why.starts_with("receipts: expected one window of this miner"), "{number}: {why}");
    }
    let why = answer(&case.order, &Digest([1; 32])).unwrap_err();
    assert!(why.contains("up to a receipt of the window"), "{why}");
    // What comes as the digests is as many as were signed for.
    let (body, file) = Trace::of(run.id(), receipt, &mine);
    assert_eq!(tile::read_digests(&body, &file), Ok(mine));
    for garbage in [&file[32..], &file[1..], &[]] {
        assert!(
            tile::read_digests(&body, garbage).unwrap_err().to_string().starts_with("digests of the trace")
        );
    }
}

#[test]
fn a_tile_in_which_nothing_differs_proves_nothing() {
    let (run, shard) = (run(24, 12), tokens());
    for work in honest(&run) {
        let said = work.said(&mut engine::perform);
        let (case, objects) = (work.case(&said, &key()), work.objects());
        let matter = Matter { run: &run, case: &case, objects: &objects, shard: &shard };
        let mine = work.traced(&said, (0..100_000).collect(), &mut engine::perform);
        let trace = signed(&case, said.len() - 1, &mine.digests, &key());
        assert!(matter.doubt(&trace, &mine.digests).unwrap_err().to_string().contains("found none"));
        let mut kinds = BTreeSet::new();
        for op in mine.program.ops.iter().filter(|op| kinds.insert(op.kind.name())) {
            let file = matter.opened(&trace, &mine.digests, (op.first, 0), &mine.kept[&op.first]).unwrap();
            assert_eq!(verify(&file).unwrap().difference, None, "{}", op.kind.name());
        }
        assert!(kinds.len() > 15, "{kinds:?}");
    }
}
