//! CUDA against the plain reference, to the bit, for every op of the catalogue that has kernels: all its cases, every way
//! of launching it, aligned memory and not, walls around every buffer.

use std::process::Command;

use kernels::catalogue::{OPS, conformance, find};
use kernels::device::trials;

use crate::support::device;

fn agrees(name: &str) {
    let Some(device) = device() else { return };
    let (op, trial) = (find(name).unwrap(), trials::find(name).unwrap());
    let compared =
        trials::device_equals_reference(&device, trial, op).unwrap_or_else(|error| panic!("{error}"));
    assert!(compared >= 2 * trial.ways.len() * op.cases().len());
}

#[test]
fn rms_norm_forward() {
    agrees("rms_norm.forward");
}

#[test]
fn rms_norm_backward() {
    agrees("rms_norm.backward");
}

#[test]
fn matmul_nn() {
    agrees("matmul.nn");
}

#[test]
fn matmul_nt() {
    agrees("matmul.nt");
}

#[test]
fn matmul_tn() {
    agrees("matmul.tn");
}

#[test]
fn adamw_step() {
    agrees("adamw.step");
}

/// An op whose room has kernels but no trial, or no test above, would escape.
#[test]
fn every_op_with_kernels_is_tried() {
    let tested = include_str!("agreement.rs");
    for op in OPS {
        let room = op.name().split('.').next().unwrap();
        let source = format!("{}/src/{room}/{room}.cu", env!("CARGO_MANIFEST_DIR"));
        let has_kernels = std::fs::exists(source).unwrap();
        assert_eq!(has_kernels, trials::find(op.name()).is_some(), "{}", op.name());
        assert_eq!(has_kernels, tested.contains(&format!("agrees(\"{}\")", op.name())), "{}", op.name());
    }
}

/// The set that admits a device: the committed hashes, as the device computes them.
#[test]
fn the_device_conforms() {
    let Some(device) = device() else { return };
    let hashes: Vec<_> = trials::TRIALS
        .iter()
        .map(|trial| {
            let run = |case: &_, inputs: &_, outputs: &mut _| {
                *outputs = trial.run(&device, 0, 0, case, inputs, outputs).unwrap();
            };
            (trial.op, conformance::hash(find(trial.op).unwrap(), run))
        })
        .collect();
    assert_eq!(conformance::deviations(&hashes), []);
}

/// From architecture 100 on NVRTC has another compiler inside, which writes another PTX. A stand-in driver that is asked
/// for such a device, and to check every access, must come to the same bits; a real one ignores the variables.
#[test]
fn the_other_dialect_agrees() {
    const ARCHITECTURE: &str = "IOTA_EMULATED_SM";
    if std::env::var(ARCHITECTURE).is_ok_and(|chosen| chosen == "120") || device().is_none() {
        return;
    }
    let this = std::env::current_exe().unwrap();
    let judged = Command::new(this)
        .arg("agreement::")
        .env(ARCHITECTURE, "120")
        .env("IOTA_EMULATED_CHECK", "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&judged.stdout);
    assert!(judged.status.success(), "{said}{}", String::from_utf8_lossy(&judged.stderr));
    assert!(!said.contains("0 passed"), "{said}");
}
