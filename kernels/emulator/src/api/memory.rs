//! Allocation, copies and fills. A device address is the host address of the same byte.

use std::ffi::{c_int, c_uint, c_void};

use super::state::{BufferKind, healthy, sound};
use super::status::Status;
use super::{Handle, Outcome, driver_calls, give};

driver_calls! {
    /// Free and total device memory in bytes.
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        let (state, settings) = healthy()?;
        // SAFETY: the contract of every call here.
        unsafe {
            give(free, (settings.memory_bytes - state.used_bytes) as usize)?;
            give(total, settings.memory_bytes as usize)
        }
    }

    /// New device memory.
    fn cuMemAlloc_v2(address: *mut u64, bytes: usize) {
        allocate(address, bytes, 0 as Handle)
    }

    /// New device memory, in order of a stream.
    fn cuMemAllocAsync(address: *mut u64, bytes: usize, stream: Handle) {
        allocate(address, bytes, stream)
    }

    /// Gives device memory back.
    fn cuMemFree_v2(address: u64) {
        if address == 0 { Ok(()) } else { healthy()?.0.free(address, BufferKind::Device) }
    }

    /// Gives device memory back, in order of a stream.
    fn cuMemFreeAsync(address: u64, stream: Handle) {
        let (mut state, _) = healthy()?;
        state.check_stream(stream)?;
        state.free(address, BufferKind::Device)
    }

    /// New pinned host memory, which kernels may touch too.
    fn cuMemHostAlloc(out: *mut *mut c_void, bytes: usize, _flags: c_uint) {
        allocate_host(out, bytes)
    }

    /// As `cuMemHostAlloc`.
    fn cuMemAllocHost_v2(out: *mut *mut c_void, bytes: usize) {
        allocate_host(out, bytes)
    }

    /// Gives pinned host memory back.
    fn cuMemFreeHost(address: *mut c_void) {
        healthy()?.0.free(address as u64, BufferKind::Host)
    }

    /// The device address of pinned host memory: the same.
    fn cuMemHostGetDevicePointer_v2(out: *mut u64, address: *mut c_void, _flags: c_uint) {
        healthy()?.0.check_device(address as u64, 1)?;
        // SAFETY: the contract of every call here.
        unsafe { give(out, address as u64) }
    }

    /// Host to device.
    fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) {
        // SAFETY: the contract of every call here.
        unsafe { copy(Place::Device(to), Place::Host(from as u64), bytes, 0 as Handle) }
    }

    /// Host to device, in order of a stream.
    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: Handle) {
        // SAFETY: the contract of every call here.
        unsafe { copy(Place::Device(to), Place::Host(from as u64), bytes, stream) }
    }

    /// Device to host.
    fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) {
        // SAFETY: the contract of every call here.
        unsafe { copy(Place::Host(to as u64), Place::Device(from), bytes, 0 as Handle) }
    }

    /// Device to host, in order of a stream.
    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: Handle) {
        // SAFETY: the contract of every call here.
        unsafe { copy(Place::Host(to as u64), Place::Device(from), bytes, stream) }
    }

    /// Device to device.
    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) {
        // SAFETY: the contract of every call here.
        unsafe { copy(Place::Device(to), Place::Device(from), bytes, 0 as Handle) }
    }

    /// Device to device, in order of a stream.
    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) {
        // SAFETY: the contract of every call here.
        unsafe { copy(Place::Device(to), Place::Device(from), bytes, stream) }
    }

    /// From anywhere to anywhere; addresses alone do not tell host from device here, so neither is checked.
    fn cuMemcpy(to: u64, from: u64, bytes: usize) {
        // SAFETY: the contract of every call here.
        unsafe { copy(Place::Host(to), Place::Host(from), bytes, 0 as Handle) }
    }

    /// As `cuMemcpy`, in order of a stream.
    fn cuMemcpyAsync(to: u64, from: u64, bytes: usize, stream: Handle) {
        // SAFETY: the contract of every call here.
        unsafe { copy(Place::Host(to), Place::Host(from), bytes, stream) }
    }

    /// Fills with a byte.
    fn cuMemsetD8_v2(to: u64, value: u8, count: usize) {
        // SAFETY: the contract of every call here.
        unsafe { fill(to, value, count, 0 as Handle) }
    }

    /// Fills with a byte, in order of a stream.
    fn cuMemsetD8Async(to: u64, value: u8, count: usize, stream: Handle) {
        // SAFETY: the contract of every call here.
        unsafe { fill(to, value, count, stream) }
    }

    /// Fills with two bytes.
    fn cuMemsetD16_v2(to: u64, value: u16, count: usize) {
        // SAFETY: the contract of every call here.
        unsafe { fill(to, value, count, 0 as Handle) }
    }

    /// Fills with two bytes, in order of a stream.
    fn cuMemsetD16Async(to: u64, value: u16, count: usize, stream: Handle) {
        // SAFETY: the contract of every call here.
        unsafe { fill(to, value, count, stream) }
    }

    /// Fills with a word.
    fn cuMemsetD32_v2(to: u64, value: u32, count: usize) {
        // SAFETY: the contract of every call here.
        unsafe { fill(to, value, count, 0 as Handle) }
    }

    /// Fills with a word, in order of a stream.
    fn cuMemsetD32Async(to: u64, value: u32, count: usize, stream: Handle) {
        // SAFETY: the contract of every call here.
        unsafe { fill(to, value, count, stream) }
    }

    /// The pool behind stream-ordered allocation.
    fn cuDeviceGetDefaultMemPool(pool: *mut Handle, device: c_int) {
        sound()?;
        super::device::exists(device)?;
        // SAFETY: the contract of every call here.
        unsafe { give(pool, POOL as Handle) }
    }

    /// How much a pool keeps; this one keeps nothing.
    fn cuMemPoolSetAttribute(pool: Handle, _attribute: c_int, value: *mut c_void) {
        sound()?;
        if value.is_null() {
            return Err(Status::InvalidValue);
        }
        if pool as u64 == POOL { Ok(()) } else { Err(Status::InvalidHandle) }
    }

    /// Gives back what a pool keeps: nothing.
    fn cuMemPoolTrimTo(pool: Handle, _keep: usize) {
        sound()?;
        if pool as u64 == POOL { Ok(()) } else { Err(Status::InvalidHandle) }
    }
}

const POOL: u64 = 0x20;

fn allocate(address: *mut u64, bytes: usize, stream: Handle) -> Outcome {
    let (mut state, settings) = healthy()?;
    state.check_stream(stream)?;
    if address.is_null() {
        return Err(Status::InvalidValue);
    }
    let found = state.allocate(bytes, BufferKind::Device, &settings)?;
    // SAFETY: the contract of the calls above.
    unsafe { give(address, found) }
}

fn allocate_host(out: *mut *mut c_void, bytes: usize) -> Outcome {
    let (mut state, settings) = healthy()?;
    if out.is_null() {
        return Err(Status::InvalidValue);
    }
    let found = state.allocate(bytes, BufferKind::Host, &settings)?;
    // SAFETY: the contract of the calls above.
    unsafe { give(out, found as *mut c_void) }
}

/// One end of a copy.
#[derive(Clone, Copy)]
enum Place {
    Host(u64),
    Device(u64),
}

/// # Safety
/// Host places are valid for the copy; device places are checked.
unsafe fn copy(to: Place, from: Place, bytes: usize, stream: Handle) -> Outcome {
    let (mut state, settings) = healthy()?;
    state.check_stream(stream)?;
    if bytes == 0 {
        return Ok(());
    }
    let address = |place| match place {
        Place::Host(0) => Err(Status::InvalidValue),
        Place::Host(address) => Ok(address),
        Place::Device(address) => state.check_device(address, bytes).map(|()| address),
    };
    let (to, from) = (address(to)?, address(from)?);
    state.check_order(&settings, stream, "a copy", [(to, true), (from, false)])?;
    if let Some((written, offset)) = state.written_at(to) {
        let source = state.written_at(from);
        written.copy(offset, source.map(|(source, from)| (&**source, from)), bytes as u64);
    }
    drop(state);
    // SAFETY: device ranges were checked, host ranges are the caller's promise; they may overlap.
    unsafe { std::ptr::copy(from as *const u8, to as *mut u8, bytes) };
    Ok(())
}

/// # Safety
/// Nothing else uses the memory meanwhile.
unsafe fn fill<T: Copy>(to: u64, value: T, count: usize, stream: Handle) -> Outcome {
    let (mut state, settings) = healthy()?;
    state.check_stream(stream)?;
    let bytes = count.checked_mul(size_of::<T>()).ok_or(Status::InvalidValue)?;
    if bytes == 0 {
        return Ok(());
    }
    if !to.is_multiple_of(size_of::<T>() as u64) {
        return Err(Status::InvalidValue);
    }
    state.check_device(to, bytes)?;
    state.check_order(&settings, stream, "a fill", [(to, true)])?;
    if let Some((written, offset)) = state.written_at(to) {
        written.mark(offset, bytes as u64);
    }
    drop(state);
    // SAFETY: the range was checked and is aligned.
    let range = unsafe { std::slice::from_raw_parts_mut(to as *mut T, count) };
    range.fill(value);
    Ok(())
}
