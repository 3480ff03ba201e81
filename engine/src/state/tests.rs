use super::*;
use crate::testing::{Pipeline, run};

#[test]
fn a_reloaded_state_goes_on_bit_for_bit() {
    let run = run(&[1, 2]);
    let mut straight = Pipeline::new(&run);
    straight.step(0, 0);
    straight.merge(0);
    straight.step(1, 0);
    straight.step(1, 1);

    let mut reloaded = Pipeline::new(&run);
    reloaded.step(0, 0);
    reloaded.merge(0);
    let at_open: Vec<Vec<u8>> = reloaded.stages.iter().map(|state| state.weights_bytes().unwrap()).collect();
    reloaded.step(1, 0);
    for (index, state) in reloaded.stages.iter_mut().enumerate() {
        let bytes = state.state_bytes().unwrap();
        assert_eq!(Digest::of(&bytes), state.state_digest().unwrap());
        *state = StageState::from_state(&run, index, &bytes).unwrap();
        assert_eq!(state.state_digest().unwrap(), Digest::of(&bytes), "the file is content-addressed");
    }
    reloaded.step(1, 1);
    assert_eq!(reloaded.weights(), straight.weights());

    // In the middle of an epoch the weights at its start come from the manifest.
    let error = crate::perform(&mut reloaded.stages[0], None, 1, &spec::Operation::Encode, &[]).unwrap_err();
    assert!(matches!(error, crate::WorkError::NoAnchor { .. }), "{error}");
    assert!(matches!(reloaded.stages[0].restore_anchor(&at_open[1]), Err(CheckpointError::Anchor { .. })));
    for (state, bytes) in reloaded.stages.iter_mut().zip(&at_open) {
        state.restore_anchor(bytes).unwrap();
    }
    reloaded.merge(1);
    straight.merge(1);
    for (a, b) in reloaded.stages.iter().zip(&straight.stages) {
        assert_eq!(a.state_digest().unwrap(), b.state_digest().unwrap());
        assert_eq!(a.momentum_digest().unwrap(), b.momentum_digest().unwrap());
    }
}

#[test]
fn what_was_hashed_before_a_merge_is_hashed_again_after_it() {
    let run = run(&[1]);
    let mut pipeline = Pipeline::new(&run);
    let is_the_files = |state: &StageState| {
        let expected = Digest::of(&state.state_bytes().unwrap());
        assert_eq!(state.state_digest().unwrap(), expected);
        let (parts, digest) = state.state_file().unwrap();
        assert_eq!((joined(&parts), digest), (expected, expected));
        (parts, digest)
    };
    // What was kept of earlier states stays as it was, whatever it shares with later ones.
    let mut kept = vec![is_the_files(&pipeline.stages[0])];
    for epoch in 0..2 {
        for step in 0..2 {
            pipeline.step(epoch, step);
            kept.push(is_the_files(&pipeline.stages[0]));
        }
        // The residual changes, then weights and momentum.
        let codes = pipeline.perform(0, epoch, &spec::Operation::Encode, &[]);
        assert!(codes.output.is_some());
        kept.push(is_the_files(&pipeline.stages[0]));
        pipeline.merge(epoch);
        kept.push(is_the_files(&pipeline.stages[0]));
    }
    assert!(kept.iter().all(|(parts, digest)| joined(parts) == *digest));
}

/// BLAKE3 of a file in parts.
fn joined(parts: &[FilePart]) -> Digest {
    Digest::of(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>().concat())
}

#[test]
fn the_files_of_an_epoch_share_what_only_a_merge_changes() {
    let run = run(&[1]);
    let mut pipeline = Pipeline::new(&run);
    let shared = |state: &StageState| {
        let (parts, _) = state.state_file().unwrap();
        let places = parts.iter().map(|part| match part {
            FilePart::Copied(_) => None,
            FilePart::Shared(values) => Some(Arc::as_ptr(values)),
        });
        (places.collect::<Vec<_>>(), parts)
    };
    let (first, kept) = shared(&pipeline.stages[0]);
    assert_eq!(first.iter().flatten().count(), 2);
    pipeline.step(0, 0);
    assert_eq!(shared(&pipeline.stages[0]).0, first);
    pipeline.merge(0);
    let (after, _) = shared(&pipeline.stages[0]);
    assert!(first.iter().zip(&after).skip(1).all(|(before, after)| before != after));
    drop(kept);
    // Without an outer optimizer there is nothing to share.
    let alone = StageState::initial(&spec::Run { outer: Outer::None, ..run }, 0).unwrap();
    let (parts, digest) = alone.state_file().unwrap();
    assert_eq!((parts.len(), joined(&parts)), (1, digest));
    assert_eq!(digest, alone.state_digest().unwrap());
}

#[test]
fn the_memory_of_a_file_that_nobody_keeps_is_the_next_ones() {
    let run = run(&[1]);
    let mut pipeline = Pipeline::new(&run);
    let mut file = || {
        pipeline.step(0, 0);
        pipeline.stages[0].state_file().unwrap()
    };
    let place = |parts: &[FilePart]| parts[0].as_ref().as_ptr();
    let [(first, _), (second, digest)] = [file(), file()];
    let (was, other) = (place(&first), place(&second));
    assert_ne!(was, other);
    let length = first[0].as_ref().len();
    drop(first);
    // Whatever the allocator has to give away.
    let others = [(); 8].map(|()| vec![1u8; length]);
    let (third, after) = file();
    assert_eq!(place(&third), was);
    drop(others);
    assert_eq!((joined(&second), joined(&third)), (digest, after));
    // Kept longer than the state, it is whole.
    drop(pipeline);
    assert_eq!(joined(&second), digest);
}

#[test]
fn a_state_at_the_start_of_an_epoch_needs_no_anchor() {
    let run = run(&[1]);
    let mut pipeline = Pipeline::new(&run);
    pipeline.step(0, 0);
    pipeline.merge(0);
    let bytes = pipeline.stages[0].state_bytes().unwrap();
    pipeline.stages[0] = StageState::from_state(&run, 0, &bytes).unwrap();
    pipeline.step(1, 0);
    pipeline.merge(1);
}

#[test]
fn a_joiner_starts_from_weights_alone_and_whoever_comes_later_from_weights_and_momentum() {
    let run = run(&[2]);
    let mut pipeline = Pipeline::new(&run);
    pipeline.step(0, 0);
    let bytes = pipeline.stages[0].weights_bytes().unwrap();
    let joiner = StageState::from_weights(&run, 0, &bytes).unwrap();
    assert_eq!(joiner.weights(), pipeline.stages[0].weights());
    assert_eq!(joiner.weights_digest().unwrap(), Digest::of(&bytes));
    assert_eq!((joiner.steps(), joiner.anchor()), (0, Digest::of(&bytes)));
    assert!(joiner.m.host().iter().all(|&m| m == 0.0));

    let nesterov = spec::Outer::Nesterov { lr: 0.7, momentum: 0.9, bits: 8 };
    let run = spec::Run { outer: nesterov, ..run };
    let mut merged = StageState::initial(&run, 0).unwrap();
    let (weights, none) = (merged.weights_bytes().unwrap(), merged.momentum_bytes().unwrap().unwrap());
    let digest = |momentum: Option<&[u8]>| {
        StageState::of_manifest(&run, 0, &weights, momentum).unwrap().state_digest().unwrap()
    };
    // Before the first merge a manifest names no momentum, which is that of zeros.
    let initial = merged.state_digest().unwrap();
    assert_eq!((digest(None), digest(Some(&none))), (initial, initial));
    let outer = merged.outer.as_mut().unwrap();
    outer.set_momentum(vec![0.5; outer.momentum().len()]);
    let momentum = merged.momentum_bytes().unwrap().unwrap();
    assert_eq!(digest(Some(&momentum)), merged.state_digest().unwrap());
    // Whatever else it holds is no fresh state.
    merged.edit_moments(|moments| moments[0] += 1.0).unwrap();
    assert_ne!(digest(Some(&momentum)), merged.state_digest().unwrap());
    assert!(StageState::of_manifest(&run, 0, &weights, Some(&weights)).is_err());
}

#[test]
fn another_stage_or_run_is_refused_by_name() {
    let (tiny, other) = (run(&[1, 1]), spec::Run { seed: 7, ..run(&[1, 1]) });
    let head = StageState::initial(&tiny, 0).unwrap();
    let message = |result: Result<StageState, CheckpointError>| result.unwrap_err().to_string();
    let wrong_stage = message(StageState::from_weights(&tiny, 1, &head.weights_bytes().unwrap()));
    assert_eq!(wrong_stage, "checkpoint metadata stage: expected 1, found 0");
    let wrong_run = message(StageState::from_weights(&other, 0, &head.weights_bytes().unwrap()));
    assert!(wrong_run.contains(&format!("run: expected {}", other.id())), "{wrong_run}");
    assert_eq!(message(StageState::initial(&tiny, 2)), "stage 2 does not exist: the model is cut into 2");
    let as_state = message(StageState::from_state(&tiny, 0, &head.weights_bytes().unwrap()));
    assert!(as_state.starts_with("checkpoint tensor weights/"), "{as_state}");
}
