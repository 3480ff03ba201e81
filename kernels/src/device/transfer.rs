//! Copies on a stream of their own, under way while the device computes.
//!
//! What arrives is used only after [`Arriving::land`], which makes later computation wait for the copy; what leaves is
//! copied after all that was queued before. Both ways lead through pinned memory, which is kept for the next copy.

use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use bytemuck::Pod;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result, sys};

use super::module::locked;
use super::{Buffer, DeviceError, Placed};

/// The copies of one device.
pub(super) struct Transfers {
    computing: Arc<CudaStream>,
    copying: Arc<CudaStream>,
    waiting: Mutex<Vec<Pinned>>,
}

/// Numbers on their way to the device. Dropped, it is waited for by what is computed next.
pub struct Arriving<T> {
    buffer: Option<Buffer<T>>,
    /// None on an imagined device, and once it is waited for.
    copied: Option<(Arc<Transfers>, Arc<CudaEvent>)>,
}

/// Numbers on their way from the device.
pub struct Leaving<T> {
    /// Held until the copy is done: `pinned` is dropped first, which waits for it.
    pinned: Option<(Arc<Transfers>, Pinned)>,
    buffer: Buffer<T>,
}

/// Pinned memory of the host.
struct Pinned {
    context: Arc<CudaContext>,
    memory: *mut c_void,
    bytes: usize,
    /// Recorded behind the copy that uses the memory.
    copied: Arc<CudaEvent>,
}

// SAFETY: pinned memory belongs to the process and not to a thread; whoever touches it owns the `Pinned`.
unsafe impl Send for Pinned {}
// SAFETY: nothing of it is read or written through a shared reference.
unsafe impl Sync for Pinned {}

impl Transfers {
    pub fn new(context: &Arc<CudaContext>, computing: &Arc<CudaStream>) -> Result<Self, DriverError> {
        Ok(Self { computing: computing.clone(), copying: context.new_stream()?, waiting: Mutex::default() })
    }

    /// Queues the copy of `host` to `buffer`, which is as long.
    pub fn send<T: Pod>(self: &Arc<Self>, host: &[T], buffer: Buffer<T>) -> Result<Arriving<T>, DriverError> {
        let bytes: &[u8] = bytemuck::cast_slice(host);
        let mut pinned = self.pinned(bytes.len())?;
        pinned.content(bytes.len()).copy_from_slice(bytes);
        // The memory may be in use by what was queued before it was given back.
        self.copying.join(&self.computing)?;
        let (to, stream) = (buffer.view().address(), self.copying.cu_stream());
        // SAFETY: the buffer is as long, nobody else's, and not used before the copy is waited for; the pinned memory is
        // written again only after `copied`.
        unsafe { result::memcpy_htod_async(to, pinned.content(bytes.len()), stream) }?;
        pinned.copied.record(&self.copying)?;
        let copied = pinned.copied.clone();
        locked(&self.waiting).push(pinned);
        Ok(Arriving { buffer: Some(buffer), copied: Some((self.clone(), copied)) })
    }

    /// Queues the copy of `buffer` to the host, after all that was queued before.
    pub fn fetch<T: Pod>(self: &Arc<Self>, buffer: Buffer<T>) -> Result<Leaving<T>, DriverError> {
        let bytes = buffer.len() * size_of::<T>();
        let mut pinned = self.pinned(bytes)?;
        self.copying.join(&self.computing)?;
        let (from, stream) = (buffer.view().address(), self.copying.cu_stream());
        // SAFETY: the buffer is as long and is held until the copy is done, as is the pinned memory.
        unsafe { result::memcpy_dtoh_async(pinned.content(bytes), from, stream) }?;
        pinned.copied.record(&self.copying)?;
        Ok(Leaving { buffer, pinned: Some((self.clone(), pinned)) })
    }

    /// Pinned memory of at least so many bytes that no copy uses any more.
    fn pinned(&self, bytes: usize) -> Result<Pinned, DriverError> {
        let mut waiting = locked(&self.waiting);
        let fitting = (0..waiting.len()).filter(|&place| waiting[place].bytes >= bytes);
        let found = fitting.min_by_key(|&place| waiting[place].bytes).map(|place| waiting.swap_remove(place));
        drop(waiting);
        match found {
            Some(pinned) => pinned.copied.synchronize().map(|()| pinned),
            None => Pinned::new(self.copying.context(), bytes),
        }
    }
}

impl Pinned {
    fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, DriverError> {
        let copied = context.new_event(Some(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING))?;
        context.bind_to_thread()?;
        // SAFETY: the context is current; `Drop` frees the memory, once.
        let memory = unsafe { result::malloc_host(bytes, 0) }?;
        Ok(Self { context: context.clone(), memory, bytes, copied: Arc::new(copied) })
    }

    /// The first `count` bytes.
    fn content(&mut self, count: usize) -> &mut [u8] {
        assert!(count <= self.bytes, "{count} bytes of {} pinned ones", self.bytes);
        // SAFETY: the memory has that size and is borrowed through `self` alone; any bytes are bytes.
        unsafe { std::slice::from_raw_parts_mut(self.memory.cast(), count) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Of a lost device nothing can be waited for nor freed.
        if self.context.bind_to_thread().is_ok() && self.copied.synchronize().is_ok() {
            // SAFETY: allocated in `new`, freed once, and no copy is under way.
            let _ = unsafe { result::free_host(self.memory) };
        }
    }
}

impl<T> Arriving<T> {
    /// Numbers that have arrived.
    pub(super) fn arrived(buffer: Buffer<T>) -> Self {
        Self { buffer: Some(buffer), copied: None }
    }

    /// The numbers, for what is queued from now on.
    ///
    /// # Errors
    /// [`DeviceError::Driver`].
    pub fn land(mut self) -> Result<Buffer<T>, DeviceError> {
        self.wait().map_err(DeviceError::driver("to wait for a copy"))?;
        match self.buffer.take() {
            Some(buffer) => Ok(buffer),
            None => unreachable!("taken here alone, and `self` is consumed"),
        }
    }

    fn wait(&mut self) -> Result<(), DriverError> {
        let Some((transfers, copied)) = self.copied.take() else { return Ok(()) };
        transfers.computing.wait(&copied)
    }
}

impl<T> Drop for Arriving<T> {
    fn drop(&mut self) {
        // A device on which that fails is lost, and its memory is not used again.
        let _ = self.wait();
    }
}

impl<T: Pod> Leaving<T> {
    /// Numbers that nobody copies.
    pub(super) fn nowhere(buffer: Buffer<T>) -> Self {
        Self { buffer, pinned: None }
    }

    /// Waits for the copy and writes it to `host`, which is as long.
    ///
    /// # Errors
    /// [`DeviceError::Driver`]; a kernel that failed shows here too.
    pub fn finish(mut self, host: &mut [T]) -> Result<(), DeviceError> {
        assert_eq!(host.len(), self.buffer.len(), "a copy from the device: elements");
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(host);
        let Some((transfers, mut pinned)) = self.pinned.take() else {
            bytes.fill(0xFF);
            return Ok(());
        };
        let doing = || format!("to copy {} bytes from the device", bytes.len());
        pinned.copied.synchronize().map_err(|e| DeviceError::of(e, doing))?;
        bytes.copy_from_slice(pinned.content(bytes.len()));
        locked(&transfers.waiting).push(pinned);
        Ok(())
    }
}
