//! What is not finite, what is not a payload, and a device that is lost.

use crate::run;
use crate::support::device;
use crate::testing::{Pipeline, member};
use engine::payload::{Expected, Kind, decode};
use engine::state::StageState;
use engine::work::{Done, WorkError};
use engine::{Device, DeviceError, perform};
use kernels::device::{Grid, Source};
use spec::{Operation, Outcome};
use std::process::Command;

fn both(run: &spec::Run) -> Option<[Pipeline; 2]> {
    let device = Device::Cuda(device()?);
    Some([Pipeline::on(run, &Device::Cpu), Pipeline::on(run, &device)])
}

fn digest(state: &StageState) -> spec::Digest {
    state.state_digest().unwrap()
}

/// Weights so large that the forward pass, the way back or the step leaves f32: the same outcome, and no trace of it.
#[test]
fn what_is_not_finite_is_the_same_outcome_and_leaves_no_trace() {
    let run = run(&[1, 1]);
    let Some(chains) = both(&run) else { return };
    let mut outcomes = Vec::new();
    for mut chain in chains {
        let (first, second) = (member(&chain.run, 0, 0), member(&chain.run, 0, 1));
        let forward = chain.perform(0, 0, &Operation::Forward(first), &[]).output.unwrap();
        chain.perform(0, 0, &Operation::Forward(second), &[]);
        chain.perform(1, 0, &Operation::Forward(first), &[&forward]);
        let gradient = chain.perform(1, 0, &Operation::Backward(first), &[]).output.unwrap();
        chain.perform(0, 0, &Operation::Backward(first), &[&gradient]);
        let before = digest(&chain.stages[0]);
        // A gradient of finite but huge values overflows on its way through the head.
        let mut huge = gradient.clone();
        huge[16..].chunks_exact_mut(4).for_each(|x| x.copy_from_slice(&3e38f32.to_le_bytes()));
        let struck = chain.perform(0, 0, &Operation::Backward(second), &[&huge]);
        assert_eq!(chain.stages[0].folded(), [first]);
        // What the step then makes of the gradients shows that those of the first member stand as they were.
        let step = Operation::Step { step: 0, members: vec![first] };
        let stepped = chain.perform(0, 0, &step, &[]);
        assert_ne!(digest(&chain.stages[0]), before);
        // A weight beyond what one product can hold.
        let weight = chain.stages[0].stage().layout().entries()[1].range.start;
        chain.stages[0].edit_weights(|weights| weights[weight] = f32::MAX).unwrap();
        chain.stages[0].edit_weights(|weights| weights[weight + 1] = f32::MAX).unwrap();
        let third = member(&chain.run, 1, 0);
        let overflown = chain.perform(0, 0, &Operation::Forward(third), &[]);
        assert!(!chain.stages[0].forget(&third));
        outcomes.push((struck, stepped, overflown, digest(&chain.stages[0])));
    }
    assert_eq!(outcomes[0], outcomes[1]);
    assert_eq!([outcomes[1].0.outcome, outcomes[1].2.outcome], [Outcome::NonFinite; 2]);
}

/// A weight that leaves f32 in the step itself takes the step back.
#[test]
fn a_weight_that_leaves_f32_takes_its_step_back() {
    let mut run = run(&[2]);
    // Weights grow by decay of the wrong sign.
    run.inner.weight_decay = -500.0;
    run.inner.members = 1;
    let Some(chains) = both(&run) else { return };
    let mut ends: Vec<(Done, spec::Digest)> = Vec::new();
    for mut chain in chains {
        // Of a token that does not occur, so that nothing else leaves f32.
        let before = chain.stages[0].weights_digest().unwrap();
        chain.stages[0].edit_weights(|weights| weights[5] = 3e38).unwrap();
        let edited = chain.stages[0].weights_digest().unwrap();
        assert_ne!(before, edited);
        let member = member(&chain.run, 3, 0);
        chain.perform(0, 0, &Operation::Forward(member), &[]);
        chain.perform(0, 0, &Operation::Backward(member), &[]);
        let done = chain.perform(0, 0, &Operation::Step { step: 3, members: vec![member] }, &[]);
        assert_eq!(done.outcome, Outcome::NonFinite);
        assert_eq!(chain.stages[0].weights_digest().unwrap(), edited);
        ends.push((done, digest(&chain.stages[0])));
    }
    assert_eq!(ends[0], ends[1]);
}

/// The sentence about a bad payload names row and fault, whoever decodes it.
#[test]
fn a_payload_that_no_encoder_writes_is_unusable_everywhere_in_the_same_words() {
    for boundary in [spec::BoundaryCodec::F32, spec::BoundaryCodec::Bf16, spec::BoundaryCodec::Int8] {
        let mut run = run(&[1, 1]);
        run.boundary = boundary;
        let Some(chains) = both(&run) else { return };
        let said = chains.map(|mut chain| {
            let member = member(&chain.run, 0, 0);
            let mut payload = chain.perform(0, 0, &Operation::Forward(member), &[]).output.unwrap();
            let last = payload.len() - 2;
            // NaN or, as an int8 code, -128.
            payload[last..]
                .copy_from_slice(&[0x80, if boundary == spec::BoundaryCodec::Int8 { 0x80 } else { 0xFF }]);
            let Pipeline { stages, shard, .. } = &mut chain;
            let operation = Operation::Forward(member);
            let done = perform(&mut stages[1], Some(&*shard), 0, &operation, &[&payload]).unwrap();
            assert_eq!((done.outcome, done.output), (Outcome::Unusable, None));
            payload
        });
        assert_eq!(said[0], said[1]);
        let expected = Expected::of(&run, Kind::Activation);
        let Some(device) = device() else { return };
        let said = [Device::Cpu, Device::Cuda(device)]
            .map(|device| decode(&expected, &said[0], &device).unwrap_err().to_string());
        assert_eq!(said[0], said[1]);
        assert!(said[1].starts_with("payload row 23"), "{}", said[1]);
    }
}

/// A kernel that writes where no memory is takes the device with it, and work says so. In a process of its own, under the
/// stand-in driver's checks, so that nothing else is lost.
#[test]
fn work_on_a_lost_device_ends_in_one_sentence() {
    const CHECK: &str = "IOTA_EMULATED_CHECK";
    const CHILD: &str = "IOTA_TEST_LOSE_DEVICE";
    let Some(device) = device() else { return };
    if std::env::var(CHILD).is_err() {
        let this = std::env::current_exe().unwrap();
        let mut command = Command::new(this);
        command.args(["work_on_a_lost_device", "--show-output"]).env(CHECK, "1").env(CHILD, "1");
        let judged = command.output().unwrap();
        let said = String::from_utf8_lossy(&judged.stdout);
        assert!(judged.status.success() && said.contains("1 passed"), "{said}");
        return;
    }
    let run = run(&[2]);
    let mut chain = Pipeline::on(&run, &Device::Cuda(device.clone()));
    chain.step(0, 0);
    let source = Source {
        name: "stray",
        pieces: &["extern \"C\" __global__ void stray(float* x) { x[1ull << 30] = 1.0f; }"],
    };
    let mut memory = device.upload(&[0.0f32]).unwrap();
    let mut view = memory.view_mut();
    let launch = device.launch(&source, "stray").unwrap().write(&mut view);
    // SAFETY: none: the kernel leaves its memory, which is what is tried, in a process made for it.
    let _ = unsafe { launch.run(Grid { x: 1, y: 1, threads: 1 }) };
    let member = member(&chain.run, 1, 0);
    let Pipeline { stages, shard, .. } = &mut chain;
    let error = perform(&mut stages[0], Some(&*shard), 0, &Operation::Forward(member), &[]).unwrap_err();
    assert!(matches!(error, WorkError::Device(DeviceError::Driver { .. })), "{error}");
    let said = error.to_string();
    assert!(said.contains("this process cannot use the device any more"), "{said}");
}
