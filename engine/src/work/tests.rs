use super::*;
use crate::state::Keeping;
use crate::testing::{Pipeline, member, run, shard};
use spec::{BoundaryCodec, NodeId, Outer};

#[test]
fn a_cut_model_is_the_whole_model_bit_for_bit() {
    let mut whole = Pipeline::new(&run(&[3]));
    let mut cut = Pipeline::new(&run(&[1, 1, 1]));
    assert!(whole.weights() == cut.weights(), "initial weights");
    for step in 0..3 {
        assert_eq!(whole.step(0, step), cut.step(0, step), "losses of step {step}");
        assert!(whole.weights() == cut.weights(), "weights after step {step}");
    }
}

#[test]
fn recomputed_activations_are_the_kept_ones() {
    // Head, body, tail and whole, of several blocks.
    for cut in [&[2, 3, 2][..], &[3]] {
        let ends = |keeping| {
            let mut pipeline = Pipeline::new(&run(cut));
            pipeline.stages.iter_mut().for_each(|state| state.keep(keeping));
            let yielded: Vec<Done> = (0..2).flat_map(|step| pipeline.step_through(0, step)).collect();
            let digests = pipeline.stages.iter().map(|state| state.state_digest().unwrap());
            (digests.collect::<Vec<_>>(), yielded)
        };
        let kept = ends(Keeping::Activations(3));
        for keeping in
            [1, 0].map(Keeping::Activations).into_iter().chain([Keeping::BlockInputs, Keeping::StageInput])
        {
            assert!(ends(keeping) == kept, "{cut:?}: {keeping}");
        }
    }
}

#[test]
fn one_thread_and_two_give_the_same_bits() {
    let train = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut pipeline = Pipeline::new(&run(&[2, 1]));
            pipeline.step(0, 0);
            pipeline.step(0, 1);
            pipeline.merge(0);
            pipeline.stages.iter().map(|state| state.state_digest().unwrap()).collect::<Vec<_>>()
        })
    };
    assert_eq!(train(1), train(2));
}

#[test]
fn loss_falls_with_every_boundary_codec() {
    for boundary in [BoundaryCodec::F32, BoundaryCodec::Bf16, BoundaryCodec::Int8] {
        let mut pipeline = Pipeline::new(&spec::Run { boundary, ..run(&[1, 1]) });
        let mean = |losses: Vec<i64>| losses.iter().sum::<i64>() as f64 / losses.len() as f64 / 2f64.powi(32);
        let first = mean(pipeline.step(0, 0));
        assert!((first - 256f64.ln()).abs() < 1.0, "{boundary:?}: untrained loss {first}");
        let mut last = first;
        for step in 1..40 {
            last = mean(pipeline.step(step / 4, step % 4));
        }
        assert!(last < 2.6, "{boundary:?}: {first} fell to {last} only");
    }
}

#[test]
fn an_epoch_ends_with_the_outer_step_and_replicas_agree() {
    // Two replicas of one stage with different microbatches; reduced by either, applied by both.
    let run = run(&[1]);
    let mut replicas = [Pipeline::new(&run), Pipeline::new(&run)];
    replicas[0].step(0, 0);
    replicas[1].step(0, 1);
    replicas[1].step(0, 2);
    let at_open = replicas[0].stages[0].anchor();
    let count = bytes_count(&replicas[0]);
    let who = [NodeId([1; 32]), NodeId([2; 32])];
    let pieces = |replicas: &mut [Pipeline; 2], scales: &[&[u8]]| -> Vec<Vec<u8>> {
        let encode = |(r, who): (&mut Pipeline, NodeId)| {
            let contribution = r.perform(0, 0, &Operation::Encode, scales).output.unwrap();
            crate::testing::whole_piece(&r.stages[0], &contribution, who)
        };
        replicas.iter_mut().zip(who).map(encode).collect()
    };
    let reduce = Operation::Reduce { shard: 0, contributors: who.to_vec() };
    let mut unshared = [Pipeline::new(&run), Pipeline::new(&run)];
    unshared[0].step(0, 0);
    unshared[1].step(0, 1);
    unshared[1].step(0, 2);
    let alone = pieces(&mut unshared, &[]);
    let both = [&alone[0][..], &alone[1][..]];
    let error = perform(&mut replicas[0].stages[0], None, 0, &reduce, &both).unwrap_err();
    assert!(error.to_string().contains("share exponents"), "{error}");
    let swapped = [both[1], both[0]];
    let error = perform(&mut replicas[0].stages[0], None, 0, &reduce, &swapped).unwrap_err();
    assert!(matches!(error, WorkError::Contributor { .. }), "{error}");

    let scales: Vec<Vec<u8>> =
        replicas.iter_mut().map(|r| r.perform(0, 0, &Operation::Scale, &[]).output.unwrap()).collect();
    let pieces = pieces(&mut replicas, &[&scales[0], &scales[1]]);
    let opened: Vec<_> =
        pieces.iter().map(|bytes| crate::contribution::Piece::from_bytes(8, count, bytes).unwrap()).collect();
    assert_eq!([opened[0].weight, opened[1].weight], [3, 6]);
    let both = [&pieces[0][..], &pieces[1][..]];
    let sums: Vec<Vec<u8>> =
        replicas.iter_mut().map(|r| r.perform(0, 0, &reduce, &both).output.unwrap()).collect();
    assert_eq!(sums[0], sums[1]);
    let sum = crate::contribution::Sum::from_bytes(8, count, &sums[0]).unwrap();
    assert_eq!(sum.weight, 9);
    for (i, &s) in sum.sums.iter().enumerate() {
        assert_eq!(s, 3 * i64::from(opened[0].codes[i]) + 6 * i64::from(opened[1].codes[i]));
    }
    for replica in &mut replicas {
        replica.perform(0, 0, &Operation::Apply, &[&sums[0]]);
    }
    assert_eq!(replicas[0].weights(), replicas[1].weights());
    assert_eq!(
        replicas[0].stages[0].momentum_digest().unwrap(),
        replicas[1].stages[0].momentum_digest().unwrap()
    );
    assert_eq!(replicas[0].stages[0].anchor(), replicas[0].stages[0].weights_digest().unwrap());
    assert_ne!(replicas[0].stages[0].anchor(), at_open);
}

fn bytes_count(pipeline: &Pipeline) -> usize {
    pipeline.stages[0].weights().len()
}

#[test]
fn what_the_codes_lose_stays_in_the_residual() {
    let mut pipeline = Pipeline::new(&run(&[1]));
    let before: Vec<f32> = pipeline.stages[0].weights().to_vec();
    pipeline.step(0, 0);
    let after: Vec<f32> = pipeline.stages[0].weights().to_vec();
    let bytes = pipeline.perform(0, 0, &Operation::Encode, &[]).output.unwrap();
    let contribution = crate::contribution::Contribution::from_bytes(8, before.len(), &bytes).unwrap();
    let residual = &pipeline.stages[0].outer.as_ref().unwrap().residual();
    assert!(residual.iter().any(|&r| r != 0.0));
    for i in 0..before.len() {
        let unit = 2f32.powi(i32::from(contribution.exponents[i / 128]) - 7);
        let change = before[i] - after[i];
        // Both products and sums are exact in this range, but for the rounding of the subtraction.
        assert!(
            (f32::from(contribution.codes[i]) * unit + residual[i] - change).abs() <= unit * 1e-4,
            "value {i}"
        );
        assert!(residual[i].abs() <= unit, "value {i}: no more than saturation and rounding are left");
    }
}

#[test]
fn without_an_outer_optimizer_the_local_weights_stand() {
    let mut pipeline = Pipeline::new(&spec::Run { outer: Outer::None, ..run(&[1]) });
    pipeline.step(0, 0);
    let (weights, anchor) = (pipeline.weights(), pipeline.stages[0].anchor());
    let error = perform(&mut pipeline.stages[0], None, 0, &Operation::Encode, &[]).unwrap_err();
    assert!(matches!(error, WorkError::NoMerge { .. }), "{error}");
    pipeline.perform(0, 0, &Operation::Apply, &[]);
    assert_eq!(pipeline.weights(), weights);
    assert_ne!(pipeline.stages[0].anchor(), anchor);
}

#[test]
fn work_out_of_order_is_refused_and_changes_nothing() {
    let run = run(&[1]);
    let mut pipeline = Pipeline::new(&run);
    let members: Vec<_> = (0..3).map(|position| member(&run, 0, position)).collect();
    for &m in &members {
        pipeline.forward(0, m);
    }
    let state = &mut pipeline.stages[0];
    let shard = shard();
    let mut attempt = |operation: Operation| perform(state, Some(&shard), 0, &operation, &[]);

    assert!(matches!(attempt(Operation::Forward(members[0])), Err(WorkError::Repeated { .. })));
    assert!(matches!(attempt(Operation::Forward(member(&run, 1, 0))), Err(WorkError::OtherStep { .. })));
    attempt(Operation::Backward(members[1])).unwrap();
    assert!(matches!(attempt(Operation::Backward(members[1])), Err(WorkError::OutOfOrder { last: 1, .. })));
    assert!(matches!(attempt(Operation::Backward(members[0])), Err(WorkError::OutOfOrder { last: 1, .. })));
    let unknown = Member { attempt: 1, ..members[2] };
    assert!(matches!(attempt(Operation::Backward(unknown)), Err(WorkError::NotForwarded { .. })));
    assert!(matches!(attempt(Operation::Encode), Err(WorkError::MidStep { step: 0, .. })));
    let wrong = Operation::Step { step: 0, members: members.clone() };
    assert!(matches!(attempt(wrong), Err(WorkError::Members { .. })));
    attempt(Operation::Step { step: 0, members: vec![members[1]] }).unwrap();
    assert!(matches!(attempt(Operation::Apply), Err(WorkError::Sums { found: 0, .. })));
    assert_eq!(pipeline.stages[0].steps(), 1);

    // The same step with nothing refused in between.
    let mut straight = Pipeline::new(&run);
    straight.forward(0, members[1]);
    straight.backward(0, members[1]);
    straight.perform(0, 0, &Operation::Step { step: 0, members: vec![members[1]] }, &[]);
    assert_eq!(straight.stages[0].state_digest().unwrap(), pipeline.stages[0].state_digest().unwrap());
}

#[test]
fn tokens_come_from_the_shard_of_the_run_alone() {
    let run = run(&[1, 1]);
    let mut pipeline = Pipeline::new(&run);
    let operation = Operation::Forward(member(&run, 0, 0));
    let error = perform(&mut pipeline.stages[0], None, 0, &operation, &[]).unwrap_err();
    assert!(matches!(error, WorkError::NoData { .. }), "{error}");
    let other = crate::data::shard_bytes(&[1; 400], crate::data::Width::One).unwrap();
    let other = TokenShard::from_bytes(other).unwrap();
    let error = perform(&mut pipeline.stages[0], Some(&other), 0, &operation, &[]).unwrap_err();
    assert!(matches!(error, WorkError::WrongShard { .. }), "{error}");
}

#[test]
fn a_step_nobody_survived_changes_nothing() {
    let run = run(&[1]);
    let mut pipeline = Pipeline::new(&run);
    let before = pipeline.stages[0].state_digest().unwrap();
    pipeline.forward(0, member(&run, 0, 0));
    assert!(pipeline.stages[0].forget(&member(&run, 0, 0)));
    let done = pipeline.perform(0, 0, &Operation::Step { step: 0, members: Vec::new() }, &[]);
    assert_eq!(done.outcome, Outcome::Ok);
    assert_eq!(pipeline.stages[0].state_digest().unwrap(), before);
}

#[test]
fn infinity_is_an_outcome_that_leaves_no_trace() {
    let run = run(&[1, 1]);
    let (first, second) = (member(&run, 0, 0), member(&run, 0, 1));
    let mut pipeline = Pipeline::new(&run);
    pipeline.forward(0, first);
    pipeline.forward(0, second);
    pipeline.backward(0, first);
    let gradients = pipeline.stages[0].flight.gradients.host().to_vec();

    // A gradient of finite but huge values overflows on its way through the head.
    let expected = crate::payload::Expected::of(&run, crate::payload::Kind::Gradient);
    let shape = [expected.rows as usize, expected.cols as usize];
    let huge = crate::tensor::Tensor::new(&shape, vec![3e38; shape[0] * shape[1]]);
    let payload = crate::payload::encode(&expected, &huge).unwrap().unwrap();
    let done = pipeline.perform(0, 0, &Operation::Backward(second), &[&payload]);
    assert!(done == Done::new(Outcome::NonFinite));
    assert!(pipeline.stages[0].flight.gradients.host() == gradients);
    assert_eq!(pipeline.stages[0].folded(), [first]);

    // The same in forward, by a weight that overflows.
    let mut pipeline = Pipeline::new(&run);
    let block = pipeline.stages[0].stage().layout().entries()[1].range.start;
    pipeline.stages[0].edit_weights(|weights| weights[block..].fill(3e38)).unwrap();
    let done = pipeline.perform(0, 0, &Operation::Forward(first), &[]);
    assert!(done == Done::new(Outcome::NonFinite));
    assert!(!pipeline.stages[0].forget(&first));
}

#[test]
fn what_is_no_payload_is_an_outcome_that_leaves_no_trace() {
    let run = run(&[1, 1]);
    let member = member(&run, 0, 0);
    let mut pipeline = Pipeline::new(&run);
    let activation = pipeline.perform(0, 0, &Operation::Forward(member), &[]).output.unwrap();
    let edits: [fn(&mut Vec<u8>); 3] =
        [|bytes| bytes[0] ^= 1, |bytes| bytes.truncate(bytes.len() - 1), |bytes| bytes[16..20].fill(0xFF)];
    for edit in edits {
        let mut spoilt = activation.clone();
        edit(&mut spoilt);
        let done = pipeline.perform(1, 0, &Operation::Forward(member), &[&spoilt]);
        assert!(done == Done::new(Outcome::Unusable));
    }
    assert_eq!(pipeline.perform(1, 0, &Operation::Forward(member), &[&activation]).outcome, Outcome::Ok);
    let gradient = pipeline.perform(1, 0, &Operation::Backward(member), &[]).output.unwrap();
    let done = pipeline.perform(0, 0, &Operation::Backward(member), &[&activation]);
    assert!(done == Done::new(Outcome::Unusable), "an activation is no gradient");
    assert_eq!(pipeline.perform(0, 0, &Operation::Backward(member), &[&gradient]).outcome, Outcome::Ok);
}

/// All steps of an epoch in one window, on weights that are one step old.
fn stale(stages: &[u32]) -> spec::Run {
    let run = run(stages);
    let epoch = spec::Epoch { digest_every: run.epoch.steps, ..run.epoch };
    spec::Run { inner: spec::Inner { staleness: 1, ..run.inner }, epoch, ..run }
}

/// Step s of a window that begins with step a runs on the weights after step max(a - 1, s - 2), and moves those after step s - 1.
#[test]
fn members_run_on_the_weights_before_the_last_step() {
    let mut run = stale(&[1, 1]);
    (run.epoch.steps, run.epoch.digest_every) = (7, 4);
    let mut fresh = run.clone();
    fresh.inner.staleness = 0;
    let mut pipeline = Pipeline::new(&run);
    let weights = |pipeline: &Pipeline| -> Vec<Vec<f32>> {
        pipeline.stages.iter().map(|state| state.weights().to_vec()).collect()
    };
    // By step, before it is taken.
    let mut versions = vec![weights(&pipeline)];
    for (step, first) in [(0u32, 0u32), (1, 0), (2, 0), (3, 0), (4, 4), (5, 4), (6, 4)] {
        let mut other = Pipeline::new(&fresh);
        let on = &versions[first.max(step.saturating_sub(1)) as usize];
        for (state, on) in other.stages.iter_mut().zip(on) {
            state.edit_weights(|weights| weights.copy_from_slice(on)).unwrap();
        }
        let members: Vec<_> = (0..3).map(|position| member(&run, step, position)).collect();
        for &member in &members {
            assert!(pipeline.forward_through(0, member) == other.forward_through(0, member), "step {step}");
        }
        for &member in &members {
            assert!(pipeline.backward(0, member) == other.backward(0, member), "step {step}");
        }
        for (state, other) in pipeline.stages.iter().zip(&other.stages) {
            assert!(state.flight.gradients.host() == other.flight.gradients.host(), "step {step}");
        }
        let before = weights(&pipeline);
        assert!(before == versions[step as usize], "step {step}");
        for stage in 0..2 {
            pipeline.perform(stage, 0, &Operation::Step { step, members: members.clone() }, &[]);
        }
        assert!(weights(&pipeline) != before, "step {step}");
        versions.push(weights(&pipeline));
    }
}

/// Whatever can be done next is, by a draw: forwards of the step in hand and, where it is stale, of the next; backwards in turn.
#[test]
fn any_order_of_two_steps_gives_the_same_bits() {
    let run = stale(&[2, 1, 2]);
    let mut in_turn = Pipeline::new(&run);
    let mut losses: Vec<i64> = (0..4).flat_map(|step| in_turn.step(0, step)).collect();
    losses.sort_unstable();
    let digests = |pipeline: &Pipeline| -> Vec<_> {
        pipeline.stages.iter().map(|state| state.state_digest().unwrap()).collect()
    };
    let mut far_ahead = Pipeline::new(&run);
    far_ahead.steps_ahead(0, 0..4);
    assert_eq!(digests(&far_ahead), digests(&in_turn));
    let mut ahead = 0;
    for (seed, keeping) in (1..).zip(Keeping::ladder()) {
        let mut swarm = Swarm::new(&run, keeping);
        let mut draw = seed;
        while let Some(next) = swarm.next(&mut draw) {
            swarm.perform(next);
        }
        swarm.losses.sort_unstable();
        assert_eq!(swarm.losses, losses, "seed {seed}: {keeping}");
        assert_eq!(digests(&swarm.pipeline), digests(&in_turn), "seed {seed}: {keeping}");
        ahead += swarm.ahead;
    }
    assert!(ahead > 20, "{ahead} forwards only came before the step before theirs");
}

/// Stages that wait for one another's payloads.
struct Swarm {
    pipeline: Pipeline,
    /// By stage: steps taken, members of the next folded.
    at: Vec<(u32, u16)>,
    /// By stage: who went forward.
    forward: Vec<Vec<Member>>,
    /// What comes in, by stage and direction.
    inbox: std::collections::BTreeMap<(usize, bool, u64), Vec<u8>>,
    losses: Vec<i64>,
    ahead: usize,
}

impl Swarm {
    fn new(run: &spec::Run, keeping: Keeping) -> Self {
        let mut pipeline = Pipeline::new(run);
        pipeline.stages.iter_mut().for_each(|state| state.keep(keeping));
        let count = pipeline.stages.len();
        let (at, forward) = (vec![(0, 0); count], vec![vec![]; count]);
        Self { pipeline, at, forward, inbox: Default::default(), losses: vec![], ahead: 0 }
    }

    fn possible(&self) -> Vec<(usize, Operation)> {
        let (run, last) = (&self.pipeline.run, self.at.len() - 1);
        let mut possible = Vec::new();
        for (stage, &(step, fold)) in self.at.iter().enumerate().filter(|(_, at)| at.0 < run.epoch.steps) {
            let of = |step| (0..run.inner.members).map(move |position| member(run, step, position));
            let done = |member: &Member| self.forward[stage].contains(member);
            let here = |member: &Member, backward| {
                self.inbox.contains_key(&(stage, backward, member.assignment))
                    || stage == if backward { last } else { 0 }
            };
            let mut due: Vec<Member> = of(step).filter(|member| !done(member)).collect();
            if due.is_empty() && step + 1 < run.epoch.steps && run.is_stale(step + 1) {
                due = of(step + 1).filter(|member| !done(member)).collect();
            }
            let due = due.into_iter().filter(|member| here(member, false));
            possible.extend(due.map(|member| (stage, Operation::Forward(member))));
            match of(step).nth(fold.into()) {
                None => possible.push((stage, Operation::Step { step, members: of(step).collect() })),
                Some(next) if done(&next) && here(&next, true) => {
                    possible.push((stage, Operation::Backward(next)));
                }
                Some(_) => {}
            }
        }
        possible
    }

    fn next(&self, draw: &mut u64) -> Option<(usize, Operation)> {
        let mut possible = self.possible();
        *draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let place = (*draw >> 33) as usize % possible.len().max(1);
        (!possible.is_empty()).then(|| possible.swap_remove(place))
    }

    fn perform(&mut self, (stage, operation): (usize, Operation)) {
        let member = match &operation {
            Operation::Forward(member) => Some((*member, false)),
            Operation::Backward(member) => Some((*member, true)),
            _ => None,
        };
        let input = member.and_then(|(member, back)| self.inbox.remove(&(stage, back, member.assignment)));
        let done = self.pipeline.perform(stage, 0, &operation, input.as_deref().as_slice());
        assert_eq!(done.outcome, Outcome::Ok);
        self.losses.extend(done.loss_q32);
        match member {
            None => self.at[stage] = (self.at[stage].0 + 1, 0),
            Some((member, backward)) => {
                if let Some(output) = done.output {
                    let to = if backward { stage - 1 } else { stage + 1 };
                    self.inbox.insert((to, backward, member.assignment), output);
                }
                if backward {
                    self.at[stage].1 += 1;
                } else {
                    self.ahead += usize::from(member.step > self.at[stage].0);
                    self.forward[stage].push(member);
                }
            }
        }
    }
}

#[test]
fn only_forwards_run_ahead_and_only_within_a_window() {
    let mut run = stale(&[1]);
    (run.epoch.steps, run.epoch.digest_every) = (4, 2);
    let mut pipeline = Pipeline::new(&run);
    let state = &mut pipeline.stages[0];
    let shard = shard();
    let mut attempt = |operation: Operation| perform(state, Some(&shard), 0, &operation, &[]);
    let of = |step| member(&run, step, 0);
    let step = |step| Operation::Step { step, members: vec![of(step)] };

    attempt(Operation::Forward(of(0))).unwrap();
    let far = attempt(Operation::Forward(of(2)));
    assert!(matches!(far, Err(WorkError::OtherStep { expected: 0, found: 2, .. })), "{far:?}");
    attempt(Operation::Forward(of(1))).unwrap();
    let early = attempt(Operation::Backward(of(1)));
    assert!(matches!(early, Err(WorkError::OtherStep { expected: 0, found: 1, .. })), "{early:?}");
    attempt(Operation::Backward(of(0))).unwrap();
    attempt(step(0)).unwrap();
    // The window of steps 0 and 1 ends first, and the merge is not before its end either.
    let over = attempt(Operation::Forward(of(2)));
    assert!(matches!(over, Err(WorkError::OtherStep { expected: 1, found: 2, .. })), "{over:?}");
    let amid = attempt(Operation::Scale);
    assert!(matches!(amid, Err(WorkError::MidStep { step: 1, .. })), "{amid:?}");
    attempt(Operation::Backward(of(1))).unwrap();
    attempt(step(1)).unwrap();
    attempt(Operation::Forward(of(2))).unwrap();
}

/// A step that all were struck from moves nothing, and the next one runs on the same weights.
#[test]
fn a_step_of_none_within_a_window_is_a_step() {
    let run = stale(&[1]);
    let mut pipeline = Pipeline::new(&run);
    pipeline.step(0, 0);
    let now = pipeline.weights();
    // It went forward, and was struck.
    pipeline.forward(0, member(&run, 1, 0));
    pipeline.perform(0, 0, &Operation::Step { step: 1, members: vec![] }, &[]);
    let mut fresh = Pipeline::new(&run);
    fresh.stages[0]
        .edit_weights(|weights| {
            for (weight, bits) in weights.iter_mut().zip(&now) {
                *weight = f32::from_bits(*bits);
            }
        })
        .unwrap();
    let second = member(&run, 2, 0);
    assert_eq!(pipeline.forward(0, second), fresh.forward(0, second));
}
