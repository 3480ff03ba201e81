//! CUDA against the plain reference, to the bit, for every op of the catalogue that has kernels: all its cases, every way
//! of launching it, aligned memory and not, walls around every buffer.

use std::process::Command;

use kernels::catalogue::{OPS, find};
use kernels::device::trials;

use crate::support::device;

fn agrees(name: &str) {
    let Some(device) = device() else { return };
    let (op, trial) = (find(name).unwrap(), trials::find(name).unwrap());
    let compared =
        trials::device_equals_reference(&device, trial, op).unwrap_or_else(|error| panic!("{error}"));
    assert!(compared >= 2 * trial.ways.len() * op.cases().len());
}

/// One test per op.
macro_rules! agree {
    ($($test:ident $op:literal)*) => {
        $(
            #[test]
            fn $test() {
                agrees($op);
            }
        )*
        /// The ops that have a test above.
        const TESTED: &[&str] = &[$($op),*];
    };
}

agree! {
    rms_norm_forward "rms_norm.forward"
    rms_norm_backward "rms_norm.backward"
    matmul_nn "matmul.nn"
    matmul_nt "matmul.nt"
    matmul_tn "matmul.tn"
    attention_forward "attention.forward"
    attention_backward "attention.backward"
    adamw_step "adamw.step"
    swiglu_forward "swiglu.forward"
    swiglu_backward "swiglu.backward"
    rope_forward "rope.forward"
    rope_backward "rope.backward"
    embedding_forward "embedding.forward"
    embedding_backward "embedding.backward"
    residual_add "residual.add"
    residual_accumulate "residual.accumulate"
    cross_entropy_forward "cross_entropy.forward"
    cross_entropy_mean_q32 "cross_entropy.mean_q32"
    reduce_sum_squares "reduce.sum_squares"
    reduce_scale "reduce.scale"
    reduce_first_beyond "reduce.first_beyond"
    philox_uniform "philox.uniform"
    philox_normal "philox.normal"
    codec_bf16 "codec.bf16"
    codec_int8 "codec.int8"
    codec_decode_int8 "codec.decode_int8"
    merge_exponents "merge.exponents"
    merge_contribute "merge.contribute"
    merge_accumulate "merge.accumulate"
    merge_nesterov "merge.nesterov"
    merge_plain "merge.none"
}

/// Ops that no device runs: what they make is a constant of the model.
const ON_HOST: &[&str] = &["rope.tables"];

/// An op whose room has kernels but no trial, or no test above, would escape.
#[test]
fn every_op_with_kernels_is_tried() {
    for op in OPS {
        let name = op.name();
        let room = name.split('.').next().unwrap();
        let source = format!("{}/src/{room}/{room}.cu", env!("CARGO_MANIFEST_DIR"));
        let expected = std::fs::exists(source).unwrap() && !ON_HOST.contains(&name);
        assert_eq!(expected, trials::find(name).is_some(), "{name}");
        assert_eq!(expected, TESTED.contains(&name), "{name}");
    }
}

/// The set that admits a device: the committed hashes, as the device computes them.
#[test]
fn the_device_conforms() {
    let Some(device) = device() else { return };
    assert_eq!(trials::deviations(&device).unwrap(), []);
}

/// From architecture 100 on NVRTC has another compiler inside, which writes another PTX.
#[test]
fn the_other_dialect_agrees() {
    agree_on("120", "agreement::");
}

/// Before architecture 80 nothing is copied asynchronously and a block has less shared memory: attention's tiles are others.
#[test]
fn attention_on_the_oldest_architecture_agrees() {
    agree_on("75", "agreement::attention_");
}

/// The tests above whose names begin with `tests`, on a stand-in driver that is asked for such a device, and to check every
/// access; a real one ignores the variables.
fn agree_on(architecture: &str, tests: &str) {
    const ARCHITECTURE: &str = "IOTA_EMULATED_SM";
    if let Ok(chosen) = std::env::var(ARCHITECTURE) {
        println!("not run: architecture {architecture}: {ARCHITECTURE} is {chosen}");
        return;
    }
    if device().is_none() {
        return;
    }
    let this = std::env::current_exe().unwrap();
    let judged = Command::new(this)
        .arg(tests)
        .env(ARCHITECTURE, architecture)
        .env("IOTA_EMULATED_CHECK", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&judged.stdout);
    assert!(judged.status.success(), "{said}{}", String::from_utf8_lossy(&judged.stderr));
    assert!(!said.contains("0 passed"), "{said}");
}
