//! Pinned host memory, through which copies go.
//!
//! The driver copies from and to pinned memory by itself, while the host goes on: one half is filled or read while the
//! other is on its way. Both halves are reserved once, whatever the size of a copy.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result, sys};

/// Bytes of a half; a multiple of the size of every number.
pub(super) const HALF_BYTES: usize = 8 << 20;

/// Two halves that take turns.
pub(super) struct Staging {
    context: Arc<CudaContext>,
    halves: [Half; 2],
}

struct Half {
    memory: *mut c_void,
    /// Recorded behind the copy that uses the half.
    copied: CudaEvent,
}

// SAFETY: pinned memory belongs to the process and not to a thread; whoever touches it holds `&mut Staging`.
unsafe impl Send for Staging {}

impl Staging {
    pub fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        context.bind_to_thread()?;
        let half = || {
            let copied = context.new_event(Some(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING))?;
            // SAFETY: the context is current; `Drop` frees the memory, once.
            let memory = unsafe { result::malloc_host(HALF_BYTES, 0) }?;
            Ok(Half { memory, copied })
        };
        Ok(Self { context: context.clone(), halves: [half()?, half()?] })
    }

    /// Queues the copy of `bytes` to `address`. They may be changed once this returns.
    ///
    /// # Safety
    /// So many bytes at `address` are the device's, and nobody else's until the copy is done.
    pub unsafe fn write(
        &mut self,
        stream: &CudaStream,
        address: u64,
        bytes: &[u8],
    ) -> Result<(), DriverError> {
        self.context.bind_to_thread()?;
        for (turn, piece) in bytes.chunks(HALF_BYTES).enumerate() {
            let half = &mut self.halves[turn % 2];
            half.copied.synchronize()?;
            let staged = half.bytes(piece.len());
            staged.copy_from_slice(piece);
            let to = address + (turn * HALF_BYTES) as u64;
            // SAFETY: the half is not written before `copied` has passed; the caller answers for the device's side.
            unsafe { result::memcpy_htod_async(to, staged, stream.cu_stream()) }?;
            half.copied.record(stream)?;
        }
        Ok(())
    }

    /// Hands `each` the `count` bytes at `address`, piece by piece, after all work queued before.
    ///
    /// # Safety
    /// So many bytes at `address` are the device's.
    pub unsafe fn read(
        &mut self,
        stream: &CudaStream,
        address: u64,
        count: usize,
        mut each: impl FnMut(&[u8]),
    ) -> Result<(), DriverError> {
        self.context.bind_to_thread()?;
        let pieces = count.div_ceil(HALF_BYTES);
        let len = |turn: usize| HALF_BYTES.min(count - turn * HALF_BYTES);
        // One piece is on its way while the one before it is read.
        for turn in 0..=pieces {
            if turn < pieces {
                let half = &mut self.halves[turn % 2];
                half.copied.synchronize()?;
                let from = address + (turn * HALF_BYTES) as u64;
                // SAFETY: the half is not touched before `copied` has passed; the caller answers for the device's side.
                unsafe { result::memcpy_dtoh_async(half.bytes(len(turn)), from, stream.cu_stream()) }?;
                half.copied.record(stream)?;
            }
            if let Some(before) = turn.checked_sub(1) {
                let half = &mut self.halves[before % 2];
                half.copied.synchronize()?;
                each(half.bytes(len(before)));
            }
        }
        Ok(())
    }
}

impl Half {
    /// The first `count` bytes, at most [`HALF_BYTES`].
    fn bytes(&mut self, count: usize) -> &mut [u8] {
        assert!(count <= HALF_BYTES, "{count} bytes of a half of {HALF_BYTES}");
        // SAFETY: the memory has that size and is borrowed through `self` alone; the driver's memory is zero or what a
        // copy left, and any bytes are bytes.
        unsafe { std::slice::from_raw_parts_mut(self.memory.cast(), count) }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let bound = self.context.bind_to_thread().is_ok();
        for half in &self.halves {
            // Of a lost device nothing can be waited for nor freed.
            if bound && half.copied.synchronize().is_ok() {
                // SAFETY: allocated in `new`, freed once, and no copy is under way.
                let _ = unsafe { result::free_host(half.memory) };
            }
        }
    }
}
