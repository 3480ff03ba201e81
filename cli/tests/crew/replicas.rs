//! What a swarm computes is what one process computes, and what it computed before.

use crate::harness::{Crew, LIGHT, new_run, new_run_of};
use engine::data::TokenShard;
use engine::train::Trainer;
use orchestrator::RunFolder;
use std::path::Path;
use wire::{Manifest, ObjectRef, Signed, StageRecord};

#[test]
fn one_seed_and_one_miner_a_stage_give_the_same_manifests_twice() {
    let place = tempfile::tempdir().unwrap();
    let (first, second) = (place.path().join("first"), place.path().join("second"));
    new_run(&first, &["--steps", "6", "--epochs", "2"]);
    make_keys(&first, 3);
    copy(&first, &second);
    let [one, other] = [&first, &second].map(|folder| {
        let mut crew = Crew::lead(folder);
        crew.man(3);
        crew.wait_for_the_end()
    });
    assert_eq!(one.len(), 2);
    assert_eq!(one, other);
}

#[test]
fn three_stages_of_two_miners_are_the_run_in_one_process() {
    for staleness in ["0", "1"] {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("run");
        let length = ["--steps", "6", "--epochs", "2", "--miners-per-stage", "2"];
        new_run_of(&LIGHT, &folder, &[&length[..], &["--staleness", staleness]].concat());
        make_keys(&folder, 6);
        let mut crew = Crew::lead(&folder);
        crew.man(6);
        assert_eq!(crew.wait_for_the_end(), in_one_process(&folder), "staleness {staleness}");
    }
}

/// The manifests of the run by the same algorithm, without a network.
pub fn in_one_process(folder: &Path) -> Vec<String> {
    let folder = RunFolder::open(folder).unwrap();
    let (run, mut before) = (folder.run().unwrap(), folder.manifest().unwrap());
    let key = |name: &str| transport::identity::load(&folder.key_path(name)).unwrap();
    let shard = std::fs::read(folder.path(&format!("objects/{}", run.data.train))).unwrap();
    let mut trainer = Trainer::new(&run, TokenShard::from_bytes(shard).unwrap()).unwrap();
    let (mut manifests, mut loss_sum) = (vec![], 0);
    let lanes = usize::from(run.miners_per_stage);
    let microbatches = lanes as i128 * i128::from(run.inner.members) * i128::from(run.epoch.steps);
    while let Some(report) = trainer.step().unwrap() {
        loss_sum += report.loss_sum_q32;
        if !report.merged {
            continue;
        }
        let count = run.model.stage_count();
        let stages = trainer.stages().into_iter().enumerate().map(|(stage, state)| {
            let seat = |lane| key(&format!("miner-{}", lane * count + stage)).id();
            let mut miners: Vec<_> = (0..lanes).map(seat).collect();
            miners.sort_unstable();
            let momentum = state.momentum_bytes().unwrap().map(|bytes| ObjectRef::of(&bytes));
            StageRecord { weights: ObjectRef::of(&state.weights_bytes().unwrap()), momentum, miners }
        });
        let body = Manifest {
            run: run.id(),
            epoch: report.epoch + 1,
            previous: before.digest(),
            stages: stages.collect(),
            loss_q32: Some((std::mem::take(&mut loss_sum) / microbatches) as i64),
        };
        before = Signed::new(body, &key("orchestrator"));
        manifests.push(ObjectRef::of(&wire::to_bytes(&before)).digest.to_string());
    }
    manifests
}

/// Keys of miners that are to be the same in another folder.
pub fn make_keys(folder: &Path, miners: usize) {
    for index in 0..miners {
        transport::identity::load_or_create(&folder.join(format!("keys/miner-{index}.key"))).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
