//! Memory that is never given back is told of in checked runs, when the context is wound up and when the process ends.
//! What a driver says goes to stderr, so each trial is a process of its own.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::process::Command;
use std::ptr::null_mut;

use cuda_emulator::api::context::*;
use cuda_emulator::api::entry::*;
use cuda_emulator::api::memory::*;

/// Says what a process of the trial does.
const ROLE: &str = "EMULATOR_LEAKS";

#[test]
fn what_is_never_freed_is_told() {
    match std::env::var(ROLE).as_deref() {
        Ok("tidy") => forgetful(false),
        Ok("forgetful") => forgetful(true),
        _ => judge(),
    }
}

fn judge() {
    let said = |role: &str, check: &str| {
        let arguments = ["--exact", "what_is_never_freed_is_told", "--nocapture"];
        let mut process = Command::new(std::env::current_exe().unwrap());
        let output =
            process.args(arguments).env(ROLE, role).env("IOTA_EMULATED_CHECK", check).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        said.lines().filter(|line| line.starts_with("emulated GPU")).map(str::to_owned).collect::<Vec<_>>()
    };
    let expected = [
        "emulated GPU: the context ends with 300 bytes of memory in 2 allocations never freed: \
         allocation 1 (100 bytes, device), allocation 3 (200 bytes, pinned)",
        "emulated GPU: the process ends with 400 bytes of memory in 1 allocations never freed: \
         allocation 4 (400 bytes, device)",
    ];
    assert_eq!(said("forgetful", "1"), expected);
    assert!(said("forgetful", "0").is_empty());
    assert!(said("tidy", "1").is_empty());
}

/// Allocates, and frees all of it or not.
fn forgetful(forget: bool) {
    // SAFETY: pointers are of live locals or of memory the driver gave.
    unsafe {
        let (mut context, mut kept, mut freed, mut pinned) = (null_mut(), 0, 0, null_mut());
        assert_eq!(cuInit(0), 0);
        assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), 0);
        assert_eq!(cuMemAlloc_v2(&mut kept, 100), 0);
        assert_eq!(cuMemAlloc_v2(&mut freed, 50), 0);
        assert_eq!(cuMemHostAlloc(&mut pinned, 200, 0), 0);
        assert_eq!(cuMemFree_v2(freed), 0);
        if !forget {
            assert_eq!(cuMemFree_v2(kept), 0);
            assert_eq!(cuMemFreeHost(pinned), 0);
        }
        assert_eq!(cuDevicePrimaryCtxRelease_v2(0), 0);
        assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), 0);
        if forget {
            assert_eq!(cuMemAlloc_v2(&mut kept, 400), 0);
        }
    }
}
