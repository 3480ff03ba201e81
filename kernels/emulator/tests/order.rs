//! A planted fault: a kernel that touches what a copy on another stream brings, without having waited for it. One test,
//! because the device is one per process.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::ffi::{CString, c_void};
use std::ptr::null_mut;

use cuda_emulator::api::Handle;
use cuda_emulator::api::context::*;
use cuda_emulator::api::entry::*;
use cuda_emulator::api::event::*;
use cuda_emulator::api::launch::*;
use cuda_emulator::api::memory::*;
use cuda_emulator::api::module::*;
use cuda_emulator::api::status::*;
use cuda_emulator::api::stream::*;

const OK: u32 = 0;
/// `CU_STREAM_NON_BLOCKING`
const NON_BLOCKING: u32 = 1;

/// Adds one to an array of 8 words.
const SOURCE: &str = ".version 8.0\n.target sm_75\n.address_size 64\n\
.visible .entry add(.param .u64 out)\n{\n.reg .b32 %r<4>;\n.reg .b64 %rd<4>;\n\
ld.param.u64 %rd1, [out];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd2, %r1, 4;\n\
add.s64 %rd1, %rd1, %rd2;\nld.global.u32 %r2, [%rd1];\nadd.u32 %r2, %r2, 1;\nst.global.u32 [%rd1], %r2;\nret;\n}\n";

/// Copies, computes and copies back, on two streams; `waits` says at which of the two turns one waits for the other.
unsafe fn turn(add: Handle, copying: Handle, [before, after]: [bool; 2]) -> u32 {
    // SAFETY: pointers are of live locals, or of memory the driver gave.
    unsafe {
        let (mut buffer, mut event) = (0u64, null_mut());
        assert_eq!(cuMemAlloc_v2(&mut buffer, 32), OK);
        assert_eq!(cuEventCreate(&mut event, 2), OK);
        let mut host = [41u32; 8];
        assert_eq!(cuMemcpyHtoDAsync_v2(buffer, host.as_ptr().cast(), 32, copying), OK);
        if before {
            assert_eq!(cuEventRecord(event, copying), OK);
            assert_eq!(cuStreamWaitEvent(null_mut(), event, 0), OK);
        }
        let params = [(&raw const buffer).cast::<c_void>()];
        let launched = cuLaunchKernel(add, 1, 1, 1, 8, 1, 1, 0, null_mut(), params.as_ptr(), null_mut());
        if after {
            assert_eq!(cuEventRecord(event, null_mut()), if before { OK } else { launched });
            assert_eq!(cuStreamWaitEvent(copying, event, 0), if before { OK } else { launched });
        }
        let copied = cuMemcpyDtoHAsync_v2(host.as_mut_ptr().cast(), buffer, 32, copying);
        if before && after {
            assert_eq!((launched, copied, cuStreamSynchronize(copying)), (OK, OK, OK));
            assert_eq!(host, [42; 8]);
        }
        launched.max(copied)
    }
}

#[test]
fn work_that_does_not_wait_for_another_stream_is_found() {
    // SAFETY: no other thread of this process reads its environment: this is its one test, and nothing is started yet.
    unsafe { std::env::set_var("IOTA_EMULATED_CHECK", "1") };
    let failed = Status::LaunchFailed as u32;
    for (waits, found) in [([true, true], OK), ([false, true], failed), ([true, false], failed)] {
        // SAFETY: pointers are of live locals, or of memory the driver gave.
        unsafe {
            assert_eq!(cuInit(0), OK);
            let (mut context, mut module, mut add, mut copying) =
                (null_mut(), null_mut(), null_mut(), null_mut());
            assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), OK);
            assert_eq!(cuCtxSetCurrent(context), OK);
            let source = CString::new(SOURCE).unwrap();
            assert_eq!(cuModuleLoadData(&mut module, source.as_ptr().cast()), OK);
            assert_eq!(cuModuleGetFunction(&mut add, module, c"add".as_ptr()), OK);
            assert_eq!(cuStreamCreate(&mut copying, NON_BLOCKING), OK);
            assert_eq!(turn(add, copying, waits), found, "{waits:?}");
            // As every error of a kernel it stays until the context is gone.
            let mut other = 0;
            assert_eq!(cuMemAlloc_v2(&mut other, 16), found);
            assert_eq!(cuDevicePrimaryCtxRelease_v2(0), OK);
        }
    }
}
