//! The same bits: every stage kind, every codec, whole runs.

use crate::run;
use crate::support::device;
use crate::testing::{Pipeline, shard};
use engine::evaluate;
use engine::generate::{Sampling, generate};
use engine::state::{Keeping, StageState};
use engine::trace::{self, Said, Window};
use engine::train::Trainer;
use engine::{Device, DeviceError};
use spec::{BoundaryCodec, Model, Operation, Outer, Run};
use std::process::Command;
use std::time::Instant;

/// Two blocks of width 64 on 128 tokens.
fn small() -> Run {
    let mut run = run(&[2]);
    run.model = Model { dim: 64, heads: 4, kv_heads: 4, ffn: 176, context: 64, ..run.model };
    run.inner.members = 1;
    run.outer = Outer::None;
    run
}

const KEEPINGS: [Keeping; 4] =
    [Keeping::Activations(4), Keeping::Activations(1), Keeping::BlockInputs, Keeping::StageInput];

fn digests(stages: &[StageState]) -> Vec<spec::Digest> {
    stages.iter().map(|state| state.state_digest().unwrap()).collect()
}

/// Head, body, tail and whole; activations kept and computed again; every payload, loss and state.
#[test]
fn every_stage_kind_yields_what_it_yields_on_the_cpu() {
    let Some(device) = device() else { return };
    let device = Device::Cuda(device);
    for (cut, boundary, staleness) in [
        (&[1, 1, 1][..], BoundaryCodec::F32, 0),
        (&[1, 1, 1], BoundaryCodec::Bf16, 1),
        (&[1, 1, 1], BoundaryCodec::Int8, 0),
        (&[2], BoundaryCodec::F32, 1),
    ] {
        let mut run = run(cut);
        (run.boundary, run.inner.staleness, run.epoch.digest_every) = (boundary, staleness, 4);
        // Rows of several blocks of the int8 codec, the last one partial.
        run.model.dim = if boundary == BoundaryCodec::Int8 { 152 } else { 24 };
        let (mut here, mut there) = (Pipeline::on(&run, &Device::Cpu), Pipeline::on(&run, &device));
        for (step, keeping) in (0..).zip(KEEPINGS) {
            here.stages.iter_mut().chain(&mut there.stages).for_each(|state| state.keep(keeping));
            let (here_yielded, there_yielded) = (here.step_through(0, step), there.step_through(0, step));
            assert!(here_yielded == there_yielded, "{cut:?} {boundary:?}: {keeping}");
            assert_eq!(digests(&here.stages), digests(&there.stages), "{cut:?} {boundary:?}: {keeping}");
        }
    }
}

/// Every output of every op of a step, one by one, as somebody who listens notes them.
#[test]
fn every_op_is_noted_as_it_is_on_the_cpu() {
    let Some(device) = device() else { return };
    let (run, shard) = (run(&[2]), shard());
    let state = StageState::initial(&run, 0).unwrap().state_bytes().unwrap();
    let members = [crate::testing::member(&run, 0, 0), crate::testing::member(&run, 0, 1)];
    let said = |operation, state| Said {
        operation,
        input: None,
        output: None,
        loss_q32: None,
        state,
        outcome: spec::Outcome::Ok,
    };
    let turn = |member| [said(Operation::Forward(member), None), said(Operation::Backward(member), None)];
    let mut said: Vec<Said> = members.into_iter().flat_map(turn).collect();
    let step = Operation::Step { step: 0, members: members.to_vec() };
    said.push(Said { operation: step, state: Some(spec::Digest::default()), ..said[0].clone() });
    let bound = (spec::Digest::of(&state), state.len() as u64);
    let window = Window { run: &run, stage: 0, epoch: 0, state: bound, said: &said };
    let on = |device: &Device| {
        let keep = Default::default();
        trace::perform(&window, &state, Some(&shard), &[], device, keep, &mut engine::perform).unwrap()
    };
    let (here, there) = (on(&Device::Cpu), on(&Device::Cuda(device)));
    assert_eq!(here.program, there.program);
    assert!(here.digests.len() > 100 && here.digests == there.digests);
}

/// Losses, gradient norms, merges and checkpoints, and a checkpoint taken over from the other side.
#[test]
fn a_run_on_a_device_is_the_run_on_the_cpu() {
    let Some(device) = device() else { return };
    let device = Device::Cuda(device);
    for outer in [Outer::Nesterov { lr: 0.7, momentum: 0.9, bits: 8 }, Outer::None] {
        let mut run = run(&[1, 1]);
        // Stopped within a window: the weights before its last step go along.
        (run.inner.staleness, run.epoch.digest_every) = (u8::from(outer == Outer::None), 4);
        run.outer = outer;
        run.boundary = BoundaryCodec::Bf16;
        let mut here = Trainer::new(&run, shard()).unwrap();
        let mut there = Trainer::new(&run, shard()).unwrap().to_device(&device).unwrap();
        for step in 0..10 {
            let (here, there) = (here.step().unwrap().unwrap(), there.step().unwrap().unwrap());
            assert_eq!(here, there, "step {step}");
        }
        let checkpoint = here.checkpoint().unwrap();
        assert_eq!(checkpoint, there.checkpoint().unwrap());
        let mut resumed = Trainer::resume(&run, shard(), &checkpoint).unwrap().to_device(&device).unwrap();
        (0..3).for_each(|_| assert_eq!(here.step().unwrap(), resumed.step().unwrap()));
        assert_eq!(here.checkpoint().unwrap(), resumed.checkpoint().unwrap());

        let loss = |trainer: &Trainer| evaluate::loss_q32(&trainer.stages(), &shard(), [0, 3]).unwrap();
        assert_eq!(loss(&here), loss(&resumed));
        let text = |trainer: &Trainer| {
            let mut tokens = vec![104, 101];
            generate(&trainer.stages(), &mut tokens, 14, Sampling { temperature: 1.0, seed: 1 }, |_| {})
                .unwrap();
            tokens
        };
        assert_eq!(text(&here), text(&resumed));
        let logits =
            |trainer: &Trainer| evaluate::logits(&trainer.stages(), &[1, 2, 3]).unwrap().data().to_vec();
        assert_eq!(logits(&here), logits(&resumed));
    }
}

/// Errors that show only after many steps: powers of the betas, drift of the rate.
#[test]
fn a_hundred_steps_end_in_the_same_weights() {
    let Some(device) = device() else { return };
    let run = Run { epoch: spec::Epoch { steps: 50, count: 2, digest_every: 10 }, ..small() };
    let mut here = Trainer::new(&run, shard()).unwrap();
    let mut there = Trainer::new(&run, shard()).unwrap().to_device(&Device::Cuda(device)).unwrap();
    for step in 0..100 {
        let (here, there) = (here.step().unwrap().unwrap(), there.step().unwrap().unwrap());
        assert_eq!(here, there, "step {step}");
    }
    assert!(here.is_complete() && there.is_complete());
    assert_eq!(here.checkpoint().unwrap(), there.checkpoint().unwrap());
}

/// Time that processors have spent on this process: unlike a clock's, it hardly depends on what else the machine does.
fn cpu_seconds() -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let nanoseconds = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    nanoseconds.sum::<u64>() as f64 / 1e9
}

/// A stand-in driver that checks every access finds nothing to complain of. Run in a process of its own, which says how
/// long a step takes; a real driver ignores the variable.
#[test]
fn a_step_under_every_check() {
    const CHECK: &str = "IOTA_EMULATED_CHECK";
    let Some(device) = device() else { return };
    if std::env::var(CHECK).is_err() {
        let this = std::env::current_exe().unwrap();
        let arguments = ["a_step_under_every_check", "every_stage_kind", "--show-output"];
        let judged = Command::new(this).args(arguments).env(CHECK, "1").output().unwrap();
        let said = String::from_utf8_lossy(&judged.stdout);
        assert!(judged.status.success() && said.contains("2 passed"), "{said}");
        said.lines().filter(|line| line.contains("seconds a step")).for_each(|line| println!("{line}"));
        return;
    }
    for keeping in [Keeping::Activations(4), Keeping::BlockInputs] {
        let device = Device::Cuda(device.clone());
        let (mut here, mut there) = (Pipeline::on(&small(), &Device::Cpu), Pipeline::on(&small(), &device));
        here.stages[0].keep(keeping);
        there.stages[0].keep(keeping);
        here.step_through(0, 0);
        // Kernels are compiled and decoded.
        there.step_through(0, 0);
        let (began, worked) = (Instant::now(), cpu_seconds());
        for step in 1..4 {
            there.step_through(0, step);
        }
        let seconds = began.elapsed().as_secs_f64() / 3.0;
        let worked = (cpu_seconds() - worked) / 3.0;
        println!(
            "2 blocks, d = 64, 128 tokens: {seconds:.3} seconds a step of who {keeping}, {worked:.3} of processors"
        );
        (1..4).for_each(|step| drop(here.step_through(0, step)));
        assert_eq!(digests(&here.stages), digests(&there.stages));
    }
}

#[test]
fn a_card_without_room_is_refused_in_a_sentence() {
    let tiny = engine::CudaDevice::imagined(1 << 20);
    let refused = StageState::initial(&small(), 0).unwrap().to_device(&Device::Cuda(tiny)).unwrap_err();
    assert!(matches!(refused, DeviceError::OutOfMemory { .. }), "{refused}");
    assert!(refused.to_string().contains("of its 884736 bytes are in use here"), "{refused}");
}
