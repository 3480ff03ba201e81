//! Every op of every stage: honest tiles are what was signed, and one wrong bit is found wherever it is.

use super::*;
use crate::testing;
use spec::{BoundaryCodec, Member};

/// A window of one stage as it really came about.
struct Case {
    run: Run,
    shard: Vec<u8>,
    stage: usize,
    state: Vec<u8>,
    said: Vec<Said>,
    inputs: Vec<Vec<u8>>,
}

/// More than a tile in every direction, and an edge in every one.
fn run(codec: BoundaryCodec) -> Run {
    let mut run = testing::run(&[1, 1, 1]);
    (run.model.dim, run.model.ffn, run.model.context) = (144, 200, 150);
    (run.boundary, run.inner.members, run.epoch.digest_every) = (codec, 2, 1);
    run.check().unwrap();
    run
}

/// The first window of each stage, and where it takes two steps the whole of it.
fn cases(run: &Run) -> Vec<Case> {
    let mut pipeline = testing::Pipeline::new(run);
    let shard = {
        let text = "the quick brown fox jumps over the lazy dog; ".repeat(12);
        let tokens = crate::data::TextTokenizer::bytes().encode(&text).unwrap();
        crate::data::shard_bytes(&tokens, crate::data::Width::One).unwrap()
    };
    let mut cases: Vec<Case> = (0..pipeline.stages.len())
        .map(|stage| Case {
            run: run.clone(),
            shard: shard.clone(),
            stage,
            state: pipeline.stages[stage].state_bytes().unwrap(),
            said: vec![],
            inputs: vec![],
        })
        .collect();
    let members =
        |step| -> Vec<Member> { (0..run.inner.members).map(|at| testing::member(run, step, at)).collect() };
    let mut forward = 0;
    for step in 0..run.epoch.digest_every {
        let mut act =
            |pipeline: &mut testing::Pipeline, stage: usize, operation: Operation, input: Option<Vec<u8>>| {
                let done = pipeline.perform(stage, 0, &operation, input.as_deref().as_slice());
                let ends = matches!(operation, Operation::Step { step, .. } if run.digests_after(step));
                let state = ends.then(|| pipeline.stages[stage].state_digest().unwrap());
                cases[stage].said.push(Said {
                    operation,
                    input: input.as_deref().map(Digest::of),
                    output: done.output_digest,
                    loss_q32: done.loss_q32,
                    state,
                    outcome: done.outcome,
                });
                cases[stage].inputs.push(input.unwrap_or_default());
                done.output
            };
        // Those of the next step too, where they may go ahead.
        while forward <= step
            || forward == step + 1 && run.is_stale(forward) && forward < run.epoch.digest_every
        {
            for member in members(forward) {
                let mut payload = None;
                for stage in 0..pipeline.stages.len() {
                    payload = act(&mut pipeline, stage, Operation::Forward(member), payload);
                }
            }
            forward += 1;
        }
        for member in members(step) {
            let mut payload = None;
            for stage in (0..pipeline.stages.len()).rev() {
                payload = act(&mut pipeline, stage, Operation::Backward(member), payload);
            }
        }
        for stage in 0..pipeline.stages.len() {
            act(&mut pipeline, stage, Operation::Step { step, members: members(step) }, None);
        }
    }
    cases
}

impl Case {
    fn window(&self) -> Window<'_> {
        let state = (Digest::of(&self.state), self.state.len() as u64);
        Window { run: &self.run, stage: self.stage, epoch: 0, state, said: &self.said }
    }

    fn inputs(&self) -> Vec<&[u8]> {
        self.inputs.iter().map(Vec::as_slice).collect()
    }

    fn shard(&self) -> TokenShard {
        TokenShard::from_bytes(self.shard.clone()).unwrap()
    }

    fn head(&self) -> &[u8] {
        let stage = crate::model::Stage::new(&self.run.model, self.stage).unwrap();
        let head = head_bytes(&self.window(), stage.layout().values() as u64).unwrap();
        &self.state[..head as usize]
    }

    fn performed(&self, keep: BTreeSet<u32>) -> Trace {
        let (window, inputs, shard) = (self.window(), self.inputs(), self.shard());
        perform(&window, &self.state, Some(&shard), &inputs, &Device::Cpu, keep, &mut crate::perform).unwrap()
    }

    /// What was signed of a source, if `value` has that digest and everything else is honest.
    fn digest(&self, trace: &Trace, source: Source, value: u32, digest: Digest) -> Option<Digest> {
        match source {
            Source::Shard => Some(self.run.data.train),
            Source::State => Some(Digest::of(&self.state)),
            Source::Payload(operation) => self.said[operation as usize].input,
            Source::Value(of) if of == value => Some(digest),
            Source::Value(of) => trace.digests.get(of as usize).copied(),
            Source::Zeros => None,
        }
    }
}

#[test]
fn a_program_is_known_without_performing_it() {
    let mut fresh = run(BoundaryCodec::Int8);
    fresh.epoch.digest_every = 2;
    let stale = Run { inner: spec::Inner { staleness: 1, ..fresh.inner.clone() }, ..fresh.clone() };
    for case in [fresh, stale].iter().flat_map(cases) {
        let trace = case.performed(BTreeSet::new());
        let derived = derive(&case.window(), case.head()).unwrap();
        for (derived, performed) in derived.ops.iter().zip(&trace.program.ops) {
            let same = match (&derived.kind, &performed.kind) {
                // The norm is a number that nobody knows without computing.
                (Kind::AdamW(a), Kind::AdamW(b)) => {
                    kernels::adamw::Constants { grad_scale: b.grad_scale, ..*a } == *b
                }
                (a, b) => a == b,
            };
            assert!(same, "{derived:?}, performed {performed:?}");
            assert_eq!(
                (&derived.inputs, derived.first, &derived.outputs, derived.operation),
                (&performed.inputs, performed.first, &performed.outputs, performed.operation)
            );
        }
        assert_eq!(derived.ops.len(), trace.program.ops.len());
        assert_eq!(trace.digests.len() as u32, derived.values());
        // What receipts bind is what the trace ends in.
        assert_eq!(first_difference(&derived, &case.said, &trace.digests, &trace.digests), None);
        let bound = derived.ops.iter().filter(|op| op.kind.is_bound()).count();
        let signed = case
            .said
            .iter()
            .flat_map(|said| [said.output.is_some(), said.loss_q32.is_some(), said.state.is_some()]);
        assert_eq!(bound, signed.filter(|signed| *signed).count());
    }
}

#[test]
fn every_tile_of_every_op_is_computed_to_the_bit_and_a_wrong_bit_in_it_is_found() {
    let mut kinds = BTreeMap::new();
    for codec in [BoundaryCodec::Int8, BoundaryCodec::F32, BoundaryCodec::Bf16] {
        for case in cases(&run(codec)) {
            let all: BTreeSet<u32> = (0..10_000).collect();
            let trace = case.performed(all);
            let program = derive(&case.window(), case.head()).unwrap();
            let (window, inputs) = (case.window(), case.inputs());
            let values = trace.kept.iter().map(|(number, bytes)| (*number, &bytes[..])).collect();
            let sources = Sources { state: &case.state, inputs: &inputs, shard: &case.shard, values };
            for value in 0..program.values() {
                let (place, output) = program.maker(value).unwrap();
                let op = &program.ops[place];
                let honest = &trace.kept[&value];
                assert_eq!(Digest::of(honest), trace.digests[value as usize]);
                let grid = Grid::of(op, output);
                let mut covered = 0;
                // The codec makes no difference to what lies between payloads.
                let ends = matches!(op.kind, Kind::Decode(_) | Kind::Encode(_));
                let tiles = if codec == BoundaryCodec::Int8 || ends { grid.tiles() } else { 0 };
                for tile in 0..tiles {
                    let at = (value, tile as u32);
                    let opening = open(&window, &program, at, |source| sources.get(source)).unwrap();
                    let found = check(&window, &program, &opening, |source| {
                        case.digest(&trace, source, value, trace.digests[value as usize])
                    });
                    assert_eq!(found, Ok(None), "{} tile {tile} of output {output}: {op:?}", op.kind.name());
                    let bytes = grid.bytes(&grid.tile(tile).unwrap());
                    covered += bytes.iter().map(|range| range.end - range.start).sum::<u64>();
                    // The last bit of the tile's last byte.
                    let wrong = bytes.last().unwrap().end - 1;
                    let mut lie = honest.clone();
                    lie[wrong as usize] ^= 1;
                    assert_eq!(first_tile(&program, value, &lie, honest), Some(tile as u32));
                    let source = |source| {
                        if source == Source::Value(value) { Some(&lie[..]) } else { sources.get(source) }
                    };
                    let opening = open(&window, &program, at, source).unwrap();
                    let digest = |source| case.digest(&trace, source, value, Digest::of(&lie));
                    let found = check(&window, &program, &opening, digest).unwrap().unwrap();
                    assert_eq!((found.op, found.place, found.output), (op.kind.name(), place, output));
                    assert_ne!(found.claimed, found.found);
                }
                assert!(
                    tiles == 0 || covered == honest.len() as u64,
                    "{}: {covered} of {}",
                    op.kind.name(),
                    honest.len()
                );
                if tiles > 0 {
                    *kinds.entry(op.kind.name()).or_insert(0) += tiles;
                }
            }
        }
    }
    println!("{kinds:?}");
    // All but the plain sum of gradients, which no stage needs: products and norms add to what is there themselves.
    assert_eq!(kinds.len(), 22, "{kinds:?}");
}

/// What a step's ops read of weights is what the step two before it made, whatever was written since.
#[test]
fn a_stale_op_opens_against_the_weights_that_it_ran_on() {
    let mut run = run(BoundaryCodec::Int8);
    (run.inner.staleness, run.inner.members, run.epoch.digest_every) = (1, 1, 3);
    for case in cases(&run) {
        let trace = case.performed((0..10_000).collect());
        let program = derive(&case.window(), case.head()).unwrap();
        let (window, inputs) = (case.window(), case.inputs());
        let values = trace.kept.iter().map(|(number, bytes)| (*number, &bytes[..])).collect();
        let sources = Sources { state: &case.state, inputs: &inputs, shard: &case.shard, values };
        let step_of = |operation: u32| match &case.said[operation as usize].operation {
            Operation::Forward(member) | Operation::Backward(member) => member.step,
            Operation::Step { step, .. } => *step,
            _ => unreachable!("no merge"),
        };
        let mut stale = 0;
        for op in program.ops.iter().filter(|op| !matches!(op.kind, Kind::AdamW(_) | Kind::State { .. })) {
            for piece in op.inputs.iter().flatten() {
                let Source::Value(number) = piece.source else { continue };
                let maker = &program.ops[program.maker(number).unwrap().0];
                if matches!(maker.kind, Kind::AdamW(_)) {
                    assert_eq!(step_of(maker.operation) + 2, step_of(op.operation), "{op:?}");
                    stale += 1;
                }
            }
        }
        assert!(stale > 0, "stage {}: no op read what a step made", case.stage);
        for value in 0..program.values() {
            let opening = open(&window, &program, (value, 0), |source| sources.get(source)).unwrap();
            let found = check(&window, &program, &opening, |source| {
                case.digest(&trace, source, value, trace.digests[value as usize])
            });
            assert_eq!(found, Ok(None), "stage {}: output {value}", case.stage);
        }
    }
}
