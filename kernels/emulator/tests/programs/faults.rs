//! Seeded faults are found and named; what is not implemented is refused with its line.

use cuda_emulator::exec::fault::{FaultKind, Report};
use cuda_emulator::exec::load;

use super::Run;

/// A kernel around a few lines. `%rd1` is the array, `%r1` the thread, `%rd3` its element of 4 bytes.
fn kernel(lines: &str) -> String {
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 out)\n{{\n\
         .shared .align 16 .b8 board[256];\n.reg .pred %p<9>;\n.reg .b32 %r<9>;\n.reg .b64 %rd<9>;\n\
         ld.param.u64 %rd1, [out];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd2, %r1, 4;\n\
         add.s64 %rd3, %rd1, %rd2;\n{lines}\nret;\n}}\n"
    )
}

fn fault(lines: &str, block: u32, check: bool) -> Box<Report> {
    fault_of(lines, &Run { block, check, ..Run::new("", "k") })
}

/// The fault of a kernel around `lines`, run as `how` says.
fn fault_of(lines: &str, how: &Run<'_>) -> Box<Report> {
    let source = kernel(lines);
    let run = Run { source: &source, ..*how };
    let report = run.on(&mut [&mut [0u32; 64]]).expect_err("the fault went unnoticed");
    let line = source.lines().nth(report.ptx_line as usize - 1).unwrap();
    assert!(lines.contains(line), "line {} is `{line}`, not one of the seeded", report.ptx_line);
    report
}

#[test]
fn a_lost_bound() {
    // 96 threads store to 64 elements.
    let report = fault("st.global.u32 [%rd3], %r1;", 96, true);
    assert_eq!(report.kind, FaultKind::IllegalAddress);
    assert_eq!((report.thread, report.warp_lane), (Some([64, 0, 0]), (2, Some(0))));
    assert!(report.what.contains("0 bytes past the end of the nearest allocation, of 256 bytes"), "{report}");
    let text = report.to_string();
    assert!(text.contains("kernel `k`") && text.contains("st.global.u32 [%rd3], %r1;"), "{text}");
}

#[test]
fn a_null_pointer_even_unchecked() {
    let report = fault("mov.u64 %rd3, 16;\nld.global.u32 %r2, [%rd3];", 32, false);
    assert_eq!(report.kind, FaultKind::IllegalAddress);
}

#[test]
fn shared_memory_out_of_bounds_even_unchecked() {
    for check in [false, true] {
        let report =
            fault("mov.u32 %r2, board;\nld.shared.v4.u32 {%r3, %r4, %r5, %r6}, [%r2+256];", 32, check);
        assert_eq!(report.kind, FaultKind::IllegalAddress);
        assert!(report.what.contains("offset 256 of shared memory, which has 256 bytes"), "{report}");
    }
}

#[test]
fn a_misaligned_16_byte_access_even_unchecked() {
    for check in [false, true] {
        let report = fault("ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%rd3];", 4, check);
        assert_eq!((report.kind, report.warp_lane.1), (FaultKind::MisalignedAddress, Some(1)));
    }
}

const SWAP: &str = "shl.b32 %r2, %r1, 2;\nmov.u32 %r3, board;\nadd.u32 %r4, %r3, %r2;\n\
    st.shared.u32 [%r4], 0;\nbar.sync 1;\nst.shared.u32 [%r4], %r1;\nbar.sync 0;\nxor.b32 %r2, %r2, 128;\nadd.u32 %r4, %r3, %r2;\n\
    ld.shared.u32 %r5, [%r4];\nst.global.u32 [%rd3], %r5;";

#[test]
fn a_removed_barrier() {
    // With the barrier the warps swap their values, unobjected.
    let source = kernel(SWAP);
    let mut out = [0u32; 64];
    Run { block: 64, check: true, ..Run::new(&source, "k") }.on(&mut [&mut out]).unwrap();
    assert!((0..64).all(|i| out[i] == i as u32 ^ 32));
    // Without it one warp reads what another writes.
    let report = fault(&SWAP.replace("bar.sync 0;\n", ""), 64, true);
    assert_eq!(report.kind, FaultKind::SharedRace);
    assert!(report.what.contains("__syncthreads"), "{report}");
}

#[test]
fn a_barrier_some_lanes_pass_by() {
    let report = fault("setp.lt.u32 %p1, %r1, 8;\n@%p1 bra PAST;\nbar.sync 0;\nPAST:", 32, true);
    assert_eq!(report.kind, FaultKind::DivergentSynchronisation);
    let report = fault("setp.lt.u32 %p1, %r1, 32;\n@%p1 bra PAST;\nbar.sync 0;\nPAST:", 64, true);
    assert_eq!(report.kind, FaultKind::DivergentSynchronisation);
}

#[test]
fn a_barrier_nobody_can_complete() {
    let report =
        fault("setp.lt.u32 %p1, %r1, 32;\n@%p1 bra ONE;\nbar.sync 2;\nONE:\n@%p1 bar.sync 1;", 64, false);
    assert_eq!(report.kind, FaultKind::DivergentSynchronisation);
}

#[test]
fn a_shuffle_whose_partners_never_come() {
    let lines = "setp.lt.u32 %p1, %r1, 8;\n@!%p1 bra PAST;\nshfl.sync.idx.b32 %r2, %r1, 0, 31, -1;\nPAST:\n\
        bar.warp.sync -1;";
    assert_eq!(fault(lines, 32, false).kind, FaultKind::DivergentSynchronisation);
}

#[test]
fn device_memory_that_nobody_wrote() {
    let how = Run { check: true, fresh: true, ..Run::new("", "k") };
    let report = fault_of("st.global.u32 [%rd3], %r1;\nld.global.u32 %r2, [%rd3+64];", &how);
    assert_eq!((report.kind, report.warp_lane), (FaultKind::UninitialisedRead, (0, Some(16))));
    assert!(report.what.contains("128 bytes into the allocation of 256 bytes"), "{report}");
    // An element of which half was written, and a copy of what was not.
    let half = "st.global.u16 [%rd3], 7;\nld.global.u32 %r2, [%rd3];";
    assert_eq!(fault_of(half, &how).kind, FaultKind::UninitialisedRead);
    let copy = "mov.u32 %r3, board;\ncp.async.ca.shared.global [%r3], [%rd1], 4;";
    assert_eq!(fault_of(copy, &how).kind, FaultKind::UninitialisedRead);
    // What was written is read in peace.
    let source = kernel("st.global.u32 [%rd3], %r1;\nld.global.u32 %r2, [%rd3];");
    Run { source: &source, ..how }.on(&mut [&mut [0u32; 64]]).unwrap();
}

#[test]
fn shared_memory_that_nobody_wrote() {
    let lines =
        "mov.u32 %r3, board;\nst.shared.u32 [%r3], 1;\nbar.sync 0;\nld.shared.v2.u32 {%r4, %r5}, [%r3];";
    let report = fault(lines, 32, true);
    assert_eq!(report.kind, FaultKind::UninitialisedRead);
    assert!(report.what.contains("shared byte 4"), "{report}");
}

#[test]
fn a_loop_without_end() {
    let lines = "AGAIN:\nadd.u32 %r2, %r2, 1;\nsetp.ne.u32 %p1, %r1, 99;\n@%p1 bra AGAIN;";
    for check in [false, true] {
        let report = fault_of(lines, &Run { check, jump_limit: 1000, ..Run::new("", "k") });
        assert_eq!(report.kind, FaultKind::Timeout);
        assert!(report.what.contains("1000 times"), "{report}");
    }
    // As many jumps as are allowed.
    let source = kernel(
        "mov.u32 %r2, 0;\nAGAIN:\nadd.u32 %r2, %r2, 1;\nsetp.le.u32 %p1, %r2, 1000;\n@%p1 bra AGAIN;\n",
    );
    Run { jump_limit: 1000, ..Run::new(&source, "k") }.on(&mut [&mut [0u32; 64]]).unwrap();
}

#[test]
fn a_missing_wait_leaves_stale_data() {
    let source = kernel(
        "mov.u32 %r3, board;\nst.shared.u32 [%r3], 1;\ncp.async.ca.shared.global [%r3], [%rd1], 4;\n\
         cp.async.commit_group;\nld.shared.u32 %r4, [%r3];\nst.global.u32 [%rd1+4], %r4;",
    );
    let mut out = [42, 0];
    Run { block: 1, ..Run::new(&source, "k") }.on(&mut [&mut out]).unwrap();
    assert_eq!(out, [42, 1]);
}

#[test]
fn a_trap() {
    assert_eq!(fault("trap;", 32, false).kind, FaultKind::IllegalInstruction);
}

#[test]
fn what_is_not_implemented_or_not_allowed_is_refused_with_its_line() {
    let refused = |line: &str, why: &str| {
        let source = kernel(line);
        let error = load(&source).expect_err(line);
        assert_eq!(source.lines().nth(error.line as usize - 1), Some(line));
        assert!(error.what.contains(why), "{error}");
        assert!(error.quoting(&source).contains(line));
    };
    refused("frobnicate.u32 %r1, %r2;", "`frobnicate.u32` is not implemented");
    refused("ex2.approx.ftz.f32 %r1, %r2;", "flushes subnormals");
    refused("rsqrt.approx.f32 %r1, %r2;", "approximation");
    refused("add.f32 %r1, %r2, %r3;", "contract");
    refused("add.rz.f32 %r1, %r2, %r3;", "nearest even");
    refused("atom.global.add.f32 %r1, [%rd1], %r2;", "order of arrival");
    refused("add.s32 %r1, %r2;", "takes 2 sources");
    refused("add.s32 %rd1, %r2, %r3;", "Double register");
    refused("ld.global.u32 %r1, [board];", "lies in Shared memory");
    refused("bra NOWHERE;", "unknown label");
    refused("mov.u32 %r1, %clock;", "%clock");
    refused("add.s32 %r99, %r2, %r3;", "%r99");
    refused("ld.global.v3.u32 {%r1, %r2, %r3}, [%rd1];", "not implemented");
    refused("st.param.u32 [out], %r1;", "Param");
    refused("call (%r1), f, (%r2);", "has no instructions in this module");
}
