//! The Driver API itself, called as a library would: order of calls, handles, sticky faults. One test, because
//! the device is one per process.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

use std::ffi::{CStr, CString, c_void};
use std::ptr::{null, null_mut};

use cuda_emulator::api::Handle;
use cuda_emulator::api::context::*;
use cuda_emulator::api::device::*;
use cuda_emulator::api::entry::*;
use cuda_emulator::api::event::*;
use cuda_emulator::api::launch::*;
use cuda_emulator::api::memory::*;
use cuda_emulator::api::module::*;
use cuda_emulator::api::occupancy::*;
use cuda_emulator::api::status::*;
use cuda_emulator::api::stream::*;

const OK: u32 = 0;

/// Two kernels: one fills an array with a number, one reads what is no address.
const SOURCE: &str = ".version 8.0\n.target sm_75\n.address_size 64\n.global .align 4 .u32 seven = 7;\n\
.visible .entry fill(.param .u64 out, .param .u32 number)\n{\n.reg .b32 %r<4>;\n.reg .b64 %rd<4>;\n\
ld.param.u64 %rd1, [out];\nld.param.u32 %r2, [number];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd2, %r1, 4;\n\
add.s64 %rd1, %rd1, %rd2;\nst.global.u32 [%rd1], %r2;\nret;\n}\n\
.visible .entry faulty()\n{\n.reg .b32 %r1;\nld.global.u32 %r1, [8];\nret;\n}\n";

#[test]
fn a_conversation_with_the_driver() {
    // SAFETY: pointers are null, of live locals, or of memory the driver gave.
    unsafe {
        let mut count = 0;
        assert_eq!(cuDeviceGetCount(&mut count), Status::NotInitialized as u32);
        assert_eq!(cuInit(1), Status::InvalidValue as u32);
        assert_eq!(cuInit(0), OK);
        assert_eq!((cuDeviceGetCount(&mut count), count), (OK, 1));
        assert_eq!(cuDeviceGetCount(null_mut()), Status::InvalidValue as u32);
        let mut device = 9;
        assert_eq!(cuDeviceGet(&mut device, 1), Status::InvalidDevice as u32);
        assert_eq!((cuDeviceGet(&mut device, 0), device), (OK, 0));
        let mut name = [1; 64];
        assert_eq!(cuDeviceGetName(name.as_mut_ptr(), 64, 0), OK);
        assert!(CStr::from_ptr(name.as_ptr()).to_str().unwrap().contains("emulated"));
        assert_eq!(cuDeviceGetName(name.as_mut_ptr(), 5, 0), OK);
        assert_eq!(CStr::from_ptr(name.as_ptr()).to_bytes(), b"iota");
        let mut value = 0;
        assert_eq!((cuDeviceGetAttribute(&mut value, 10, 0), value), (OK, 32));
        assert_eq!(cuDeviceGetAttribute(&mut value, 100_000, 0), Status::InvalidValue as u32);
        let mut words = null();
        assert_eq!(cuGetErrorName(700, &mut words), OK);
        assert_eq!(CStr::from_ptr(words).to_bytes(), b"CUDA_ERROR_ILLEGAL_ADDRESS");
        assert_eq!(cuGetErrorString(123_456, &mut words), Status::InvalidValue as u32);

        let mut address = 0;
        assert_eq!(cuMemAlloc_v2(&mut address, 256), Status::InvalidContext as u32);
        let mut context: Handle = null_mut();
        assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), OK);
        assert_eq!(cuCtxSetCurrent(context), OK);
        let mut current = null_mut();
        assert_eq!((cuCtxGetCurrent(&mut current), current), (OK, context));
        assert_eq!(cuCtxSetCurrent(5 as Handle), Status::InvalidContext as u32);

        memory();
        streams_and_events();
        modules_and_launches();

        // The fault sticks until the context is gone.
        assert_eq!(cuMemAlloc_v2(&mut address, 256), Status::IllegalAddress as u32);
        assert_eq!(cuDevicePrimaryCtxRelease_v2(0), OK);
        assert_eq!(cuDevicePrimaryCtxRelease_v2(0), Status::InvalidContext as u32);
        assert_eq!(cuDevicePrimaryCtxRetain(&mut context, 0), OK);
        assert_eq!(cuMemAlloc_v2(&mut address, 256), OK);
        assert_eq!(cuMemFree_v2(address), OK);
    }
}

unsafe fn memory() {
    // SAFETY: as in the test.
    unsafe {
        let (mut free, mut total, mut address) = (0, 0, 0);
        assert_eq!(cuMemGetInfo_v2(&mut free, &mut total), OK);
        assert_eq!(free, total);
        assert_eq!(cuMemAlloc_v2(&mut address, total + 1), Status::OutOfMemory as u32);
        assert_eq!(cuMemAlloc_v2(&mut address, 0), Status::InvalidValue as u32);
        assert_eq!(cuMemAlloc_v2(null_mut(), 16), Status::InvalidValue as u32);
        assert_eq!(cuMemAlloc_v2(&mut address, 1000), OK);
        assert_eq!(address % 256, 0);
        assert_eq!(cuMemGetInfo_v2(&mut free, &mut total), OK);
        assert_eq!(total - free, 1000);
        let data = [7u8; 1000];
        assert_eq!(cuMemcpyHtoD_v2(address, data.as_ptr().cast(), 1001), Status::InvalidValue as u32);
        assert_eq!(cuMemcpyHtoD_v2(address + 1, data.as_ptr().cast(), 1000), Status::InvalidValue as u32);
        assert_eq!(cuMemcpyHtoD_v2(address, null(), 10), Status::InvalidValue as u32);
        assert_eq!(cuMemcpyHtoD_v2(address, data.as_ptr().cast(), 1000), OK);
        assert_eq!(cuMemsetD32_v2(address + 4, 0x0102_0304, 2), OK);
        assert_eq!(cuMemsetD32_v2(address + 2, 0, 2), Status::InvalidValue as u32);
        let mut back = [0u8; 16];
        assert_eq!(cuMemcpyDtoH_v2(back.as_mut_ptr().cast(), address, 16), OK);
        assert_eq!(back, [7, 7, 7, 7, 4, 3, 2, 1, 4, 3, 2, 1, 7, 7, 7, 7]);
        assert_eq!(cuMemFree_v2(address + 8), Status::InvalidValue as u32);
        assert_eq!(cuMemFree_v2(address), OK);
        assert_eq!(cuMemFree_v2(address), Status::InvalidValue as u32);
        assert_eq!(cuMemcpyDtoH_v2(back.as_mut_ptr().cast(), address, 16), Status::InvalidValue as u32);
        let mut pinned = null_mut();
        assert_eq!(cuMemHostAlloc(&mut pinned, 64, 0), OK);
        pinned.cast::<u8>().write_bytes(3, 64);
        assert_eq!(cuMemFreeHost(pinned), OK);
        assert_eq!(cuMemFreeHost(pinned), Status::InvalidValue as u32);
    }
}

unsafe fn streams_and_events() {
    // SAFETY: as in the test.
    unsafe {
        let (mut stream, mut start, mut end) = (null_mut(), null_mut(), null_mut());
        assert_eq!(cuStreamCreate(&mut stream, 1), OK);
        assert_eq!(cuEventCreate(&mut start, 0), OK);
        assert_eq!(cuEventCreate(&mut end, 0), OK);
        let mut milliseconds = -1.0;
        assert_eq!(cuEventElapsedTime(&mut milliseconds, start, end), Status::InvalidHandle as u32);
        assert_eq!(cuEventRecord(start, stream), OK);
        assert_eq!(cuEventRecord(end, stream), OK);
        assert_eq!(cuEventElapsedTime(&mut milliseconds, start, end), OK);
        assert!(milliseconds >= 0.0);
        assert_eq!(cuStreamWaitEvent(stream, end, 0), OK);
        assert_eq!(cuStreamWaitEvent(stream, stream, 0), Status::InvalidHandle as u32);
        assert_eq!(cuStreamSynchronize(stream), OK);
        assert_eq!(cuStreamDestroy_v2(stream), OK);
        assert_eq!(cuStreamSynchronize(stream), Status::InvalidHandle as u32);
        assert_eq!(cuEventDestroy_v2(start), OK);
        assert_eq!(cuEventQuery(start), Status::InvalidHandle as u32);
    }
}

unsafe fn modules_and_launches() {
    // SAFETY: as in the test.
    unsafe {
        let mut module = null_mut();
        let broken = CString::new(SOURCE.replace("mul.wide", "mul.wild")).unwrap();
        let mut log = [0u8; 256];
        let (options, values) = ([5, 6], [log.as_mut_ptr().cast::<c_void>(), log.len() as *mut c_void]);
        let status =
            cuModuleLoadDataEx(&mut module, broken.as_ptr().cast(), 2, options.as_ptr(), values.as_ptr());
        assert_eq!(status, Status::InvalidPtx as u32);
        let log = CStr::from_bytes_until_nul(&log).unwrap().to_str().unwrap();
        assert!(log.contains("line 12") && log.contains("mul.wild"), "{log}");
        let newer = CString::new(SOURCE.replace("sm_75", "sm_999")).unwrap();
        assert_eq!(cuModuleLoadData(&mut module, newer.as_ptr().cast()), Status::NoBinaryForGpu as u32);
        assert_eq!(cuModuleLoadData(&mut module, c"\x7fELF".as_ptr().cast()), Status::NoBinaryForGpu as u32);
        assert_eq!(cuModuleLoadData(&mut module, null()), Status::InvalidValue as u32);
        let source = CString::new(SOURCE).unwrap();
        assert_eq!(cuModuleLoadData(&mut module, source.as_ptr().cast()), OK);

        let (mut seven, mut bytes, mut word) = (0, 0, 0u32);
        assert_eq!(cuModuleGetGlobal_v2(&mut seven, &mut bytes, module, c"seven".as_ptr()), OK);
        assert_eq!(cuMemcpyDtoH_v2((&raw mut word).cast(), seven, bytes), OK);
        assert_eq!(word, 7);

        let (mut fill, mut faulty) = (null_mut(), null_mut());
        assert_eq!(cuModuleGetFunction(&mut fill, module, c"nothing".as_ptr()), Status::NotFound as u32);
        assert_eq!(cuModuleGetFunction(&mut fill, module, c"fill".as_ptr()), OK);
        assert_eq!(cuModuleGetFunction(&mut faulty, module, c"faulty".as_ptr()), OK);
        let mut blocks = 0;
        assert_eq!(cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, fill, 256, 0), OK);
        assert!(blocks > 0);
        assert_eq!(cuFuncSetAttribute(fill, 8, 1 << 30), Status::InvalidValue as u32);

        let mut out = 0u64;
        assert_eq!(cuMemAlloc_v2(&mut out, 4 * 40), OK);
        let number = 0xabcd_u32;
        let params: [*const c_void; 2] = [(&raw const out).cast(), (&raw const number).cast()];
        let run = |function, blocks, threads, shared, params| {
            cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, shared, null_mut(), params, null())
        };
        assert_eq!(run(fill, 0, 32, 0, params.as_ptr()), Status::InvalidValue as u32);
        assert_eq!(run(fill, 1, 1025, 0, params.as_ptr()), Status::InvalidValue as u32);
        assert_eq!(run(fill, 1, 32, 49 << 10, params.as_ptr()), Status::InvalidValue as u32);
        assert_eq!(run(fill, 1, 32, 0, null()), Status::InvalidValue as u32);
        assert_eq!(run(7 as Handle, 1, 32, 0, params.as_ptr()), Status::InvalidHandle as u32);
        assert_eq!(run(fill, 1, 40, 0, params.as_ptr()), OK);
        let mut back = [0u32; 40];
        assert_eq!(cuMemcpyDtoH_v2(back.as_mut_ptr().cast(), out, 160), OK);
        assert_eq!(back, [number; 40]);

        // The launch of a faulty kernel succeeds, as on a device; what comes after tells.
        assert_eq!(run(faulty, 1, 1, 0, null()), OK);
        assert_eq!(cuCtxSynchronize(), Status::IllegalAddress as u32);
    }
}
