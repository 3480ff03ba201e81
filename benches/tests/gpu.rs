//! The command for whoever has a card says in one sentence when there is none, and does not take the stand-in for one.

use std::process::Command;

#[test]
fn without_a_real_device_there_is_nothing_to_measure() {
    // The folder of the stand-in driver is on the path or not: both are refused, each with its reason.
    for variables in [vec![], vec![("LD_LIBRARY_PATH", "")]] {
        let output = Command::new(env!("CARGO_BIN_EXE_gpu")).envs(variables).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            println!("not run: the refusal of a machine without a GPU: this one has a GPU");
            return;
        }
        assert_eq!(output.status.code(), Some(2), "{said}");
        let reasons =
            ["the CUDA driver was not found", "times mean nothing", "the CUDA driver failed to start"];
        assert!(said.starts_with("no device is measured: ") && said.trim().lines().count() == 1, "{said}");
        assert!(reasons.iter().any(|reason| said.contains(reason)), "{said}");
        assert!(output.stdout.is_empty());
    }
}
