//! The trainer against the stages driven as a swarm drives them, and against itself after a stop.

use super::*;
use crate::testing::{Pipeline, run, shard};
use proptest::prelude::*;
use spec::{BoundaryCodec, Outer};

fn records(trainer: &Trainer) -> Vec<StageRecord> {
    trainer.checkpoint().unwrap().stages
}

fn advance(trainer: &mut Trainer, steps: usize) -> Vec<StepReport> {
    (0..steps).map(|_| trainer.step().unwrap().unwrap()).collect()
}

/// Runs with and without an outer optimizer, whole and cut, plain and coded boundaries.
fn runs() -> Vec<Run> {
    let mut coded = run(&[1, 1, 1]);
    coded.boundary = BoundaryCodec::Int8;
    let mut plain = run(&[2]);
    plain.outer = Outer::None;
    vec![coded, plain, run(&[1, 2]), stale(run(&[1, 1, 1]))]
}

/// All steps of an epoch but its first on stale weights.
fn stale(run: Run) -> Run {
    let epoch = spec::Epoch { digest_every: run.epoch.steps, ..run.epoch };
    Run { inner: spec::Inner { staleness: 1, ..run.inner }, epoch, ..run }
}

/// The same, and two of two replicas.
fn runs_of_any_width() -> Vec<Run> {
    let mut runs = runs();
    let both = Run { miners_per_stage: 2, ..run(&[1, 2]) };
    runs.extend([both.clone(), stale(both)]);
    runs
}

#[test]
fn the_weights_are_those_of_a_swarm() {
    for run in runs() {
        let mut trainer = Trainer::new(&run, shard()).unwrap();
        let mut pipeline = Pipeline::new(&run);
        for epoch in 0..2 {
            for step in 0..run.epoch.steps {
                // All members forward, then all backward: another order than the trainer's.
                let losses = pipeline.step(epoch, step);
                let report = trainer.step().unwrap().unwrap();
                let mean = losses.iter().sum::<i64>() / losses.len() as i64;
                assert_eq!((report.epoch, report.step, report.loss_q32), (epoch, step, mean));
                assert_eq!(report.merged, step + 1 == run.epoch.steps);
            }
            if run.outer == Outer::None {
                for stage in 0..pipeline.stages.len() {
                    pipeline.perform(stage, epoch, &Operation::Apply, &[]);
                }
            } else {
                pipeline.merge(epoch);
            }
            let digests = |states: Vec<&StageState>| -> Vec<Digest> {
                states.into_iter().map(|state| state.state_digest().unwrap()).collect()
            };
            assert_eq!(digests(trainer.stages()), digests(pipeline.references()));
        }
    }
}

#[test]
fn a_resumed_run_is_the_same_to_the_bit() {
    for run in runs_of_any_width() {
        let mut through = Trainer::new(&run, shard()).unwrap();
        let expected = advance(&mut through, 10);
        // Within an epoch (of 4 steps), and on the border of two.
        for stop in [0, 3, 4, 6] {
            let mut first = Trainer::new(&run, shard()).unwrap();
            advance(&mut first, stop);
            let checkpoint = first.checkpoint().unwrap();
            let mut second = Trainer::resume(&run, shard(), &checkpoint).unwrap();
            assert_eq!(
                second.checkpoint().unwrap(),
                checkpoint,
                "a checkpoint read is the checkpoint written"
            );
            assert_eq!(advance(&mut second, 10 - stop), expected[stop..], "stopped after {stop}");
            assert_eq!(second.checkpoint().unwrap(), through.checkpoint().unwrap(), "stopped after {stop}");
        }
    }
}

#[test]
fn threads_do_not_show_in_a_bit() {
    let run = run(&[1, 2]);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut trainer = Trainer::new(&run, shard()).unwrap();
            let reports = advance(&mut trainer, 5);
            (reports, records(&trainer))
        })
    };
    let one = with(1);
    assert_eq!(with(2), one);
    assert_eq!(with(5), one);
}

#[test]
fn a_run_ends_and_stays_ended() {
    let mut run = run(&[1]);
    run.epoch.count = 1;
    let mut trainer = Trainer::new(&run, shard()).unwrap();
    let reports = advance(&mut trainer, 4);
    assert!(reports[3].loss_q32 < reports[0].loss_q32 && reports[0].gradient_norm > 0.0);
    assert!(trainer.is_complete() && trainer.step().unwrap().is_none());
    assert_eq!(trainer.progress(), Progress { epoch: 1, step: 0 });
    let mut again = Trainer::resume(&run, shard(), &trainer.checkpoint().unwrap()).unwrap();
    assert!(again.step().unwrap().is_none());
}

#[test]
fn what_is_not_a_checkpoint_of_this_run_is_named() {
    let run = run(&[1, 1]);
    let mut trainer = Trainer::new(&run, shard()).unwrap();
    advance(&mut trainer, 1);
    let good = trainer.checkpoint().unwrap();
    let refusal = |run: &Run, checkpoint: &Checkpoint| {
        Trainer::resume(run, shard(), checkpoint).err().map(|e| e.to_string()).unwrap_or_default()
    };
    assert_eq!(refusal(&run, &good), "");
    assert_eq!(
        Checkpoint::names(&good.stages, 2),
        [0, 1].map(|i| [format!("state-{i}.safetensors"), format!("anchor-{i}.safetensors")]).concat()
    );

    let mut other = run.clone();
    other.seed += 1;
    assert!(refusal(&other, &good).contains("belongs to run"));
    let mut few = good.clone();
    few.stages.pop();
    assert!(refusal(&run, &few).contains("records 1 stages, the run has 2"));
    let mut beyond = good.clone();
    beyond.progress = Progress { epoch: 3, step: 4 };
    assert!(refusal(&run, &beyond).contains("epoch 3, step 4, beyond the run's 10 epochs of 4 steps"));
    for name in Checkpoint::names(&good.stages, 2) {
        let mut lacking = good.clone();
        lacking.files.retain(|file| file.name != name);
        assert!(refusal(&run, &lacking).contains(&format!("lacks {name}")), "{name}");
    }
    let stale = stale(run.clone());
    let mut trainer = Trainer::new(&stale, shard()).unwrap();
    advance(&mut trainer, 1);
    let good = trainer.checkpoint().unwrap();
    assert_eq!(refusal(&stale, &good), "");
    let names = Checkpoint::names(&good.stages, 2);
    assert_eq!(
        names[..3],
        ["state-0.safetensors", "anchor-0.safetensors", "stale-0.safetensors"].map(String::from)
    );
    let mut lacking = good.clone();
    lacking.files.retain(|file| !file.name.starts_with("stale-1"));
    assert!(refusal(&stale, &lacking).contains("lacks stale-1.safetensors"));
    let mut unsaid = good.clone();
    unsaid.stages[1].stale = None;
    assert!(
        refusal(&stale, &unsaid)
            .ends_with("epoch 0, step 1 records stale weights for 1 of 2 lanes' stages, expected 2")
    );
    let mut shorter = run.clone();
    shorter.data.train_tokens -= 1;
    shorter.data.train = Digest::default();
    assert!(Trainer::new(&shorter, shard()).unwrap_err().to_string().contains("the token shard is"));
}

#[test]
fn a_value_that_is_not_finite_stops_the_run_in_one_sentence() {
    let run = run(&[1, 1]);
    let mut trainer = Trainer::new(&run, shard()).unwrap();
    trainer.lanes[0][1].edit_weights(|weights| weights.fill(f32::MAX)).unwrap();
    let said = trainer.step().unwrap_err().to_string();
    assert!(said.starts_with("forward of assignment 0") && said.contains("in stage 1, epoch 0"), "{said}");
    assert!(matches!(trainer.step(), Err(TrainError::BrokenOff)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn one_flipped_bit_of_any_file_is_refused_by_name(file in 0usize..4, at: prop::sample::Index, bit in 0u8..8) {
        let run = run(&[1, 1]);
        let mut trainer = Trainer::new(&run, shard()).unwrap();
        advance(&mut trainer, 1);
        let mut checkpoint = trainer.checkpoint().unwrap();
        let file = &mut checkpoint.files[file];
        let name = file.name.clone();
        *at.get_mut(&mut file.bytes) ^= 1 << bit;
        let said = Trainer::resume(&run, shard(), &checkpoint).unwrap_err().to_string();
        prop_assert!(said.starts_with(&format!("{name}: its BLAKE3 is")), "{}", said);
    }
}

#[test]
fn two_replicas_agree_after_every_merge_and_read_different_text() {
    let alone = run(&[1, 2]);
    let both = Run { miners_per_stage: 2, ..alone.clone() };
    let (mut alone, mut both) =
        (Trainer::new(&alone, shard()).unwrap(), Trainer::new(&both, shard()).unwrap());
    for _ in 0..2 {
        advance(&mut alone, 4);
        let reports = advance(&mut both, 4);
        let members = u64::from(both.run.inner.members);
        assert_eq!(reports[3].tokens, 2 * members * both.run.microbatch_tokens());
        let [one, other] = both.lanes() else { panic!("{} lanes", both.lanes().len()) };
        for (one, other) in one.iter().zip(other) {
            assert_eq!(one.weights_digest().unwrap(), other.weights_digest().unwrap());
            assert_eq!(one.momentum_digest().unwrap(), other.momentum_digest().unwrap());
            assert_ne!(
                one.state_digest().unwrap(),
                other.state_digest().unwrap(),
                "moments and residuals are a replica's own"
            );
        }
    }
    let weights = |trainer: &Trainer| {
        trainer.stages().into_iter().map(|state| state.weights_digest().unwrap()).collect::<Vec<_>>()
    };
    assert_ne!(weights(&both), weights(&alone));
}
