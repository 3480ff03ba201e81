//! One CUDA device: its context, its streams, its compiled modules, its memory.
//!
//! A device may also be *imagined*: it has an arena and sizes but no driver, launches do nothing, and what is read of it is
//! all ones. Work on it shows what memory the same work takes on a real one.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;
use cudarc::driver::sys::CUdevice_attribute;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result, sys};
use rayon::prelude::*;

use super::arena::{Arena, Usage};
use super::cache::ModuleCache;
use super::module::{Modules, locked};
use super::staging::{HALF_BYTES, Staging};
use super::transfer::{Arriving, Leaving, Transfers};
use super::{Buffer, DeviceError, Launch, Placed, Source, View, ViewMut, compile, library};

/// An imagined block is shorter than two to the power of this.
const BLOCK_BITS_IMAGINED: u32 = 40;

/// One CUDA device. Clones share context, stream, modules and memory.
#[derive(Clone)]
pub struct CudaDevice(Arc<Inner>);

struct Inner {
    /// None of an imagined device.
    driver: Option<Driver>,
    capability: u32,
    multiprocessors: u32,
    memory_bytes: u64,
    arena: Mutex<Arena>,
}

struct Driver {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    modules: Modules,
    /// Reserved at the first copy.
    staging: Mutex<Option<Staging>>,
    /// Copies beside what is computed.
    transfers: Arc<Transfers>,
}

/// Who a device is, for people to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The device's name, as the driver says it.
    pub name: String,
    /// Compute capability, (major, minor).
    pub capability: (u32, u32),
    /// Newest CUDA version that the driver supports, (major, minor).
    pub driver: (u32, u32),
    /// NVRTC's version, (major, minor); `None` if there is no NVRTC.
    pub nvrtc: Option<(u32, u32)>,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
}

impl CudaDevice {
    /// How many devices the driver has.
    ///
    /// # Errors
    /// [`DeviceError::LibraryMissing`] without a driver; [`DeviceError::Driver`] if it cannot start.
    pub fn count() -> Result<usize, DeviceError> {
        library::require_driver()?;
        result::init().map_err(DeviceError::driver("to start"))?;
        let count = result::device::get_count().map_err(DeviceError::driver("to count devices"))?;
        Ok(count.unsigned_abs() as usize)
    }

    /// Opens device `ordinal`, counted from 0; compiled kernels are kept in the user's cache.
    ///
    /// # Errors
    /// As [`CudaDevice::count`]; [`DeviceError::NoSuchDevice`] for a number too high.
    pub fn open(ordinal: usize) -> Result<Self, DeviceError> {
        Self::open_with_cache(ordinal, ModuleCache::of_user())
    }

    /// As [`CudaDevice::open`], with compiled kernels kept in `cache`.
    ///
    /// # Errors
    /// As [`CudaDevice::open`].
    pub fn open_with_cache(ordinal: usize, cache: ModuleCache) -> Result<Self, DeviceError> {
        let count = Self::count()?;
        if ordinal >= count {
            return Err(DeviceError::NoSuchDevice { ordinal, count });
        }
        let opening = format!("to open device {ordinal}");
        let context = CudaContext::new(ordinal).map_err(DeviceError::driver(opening))?;
        let asking = "to describe the device";
        let (major, minor) = context.compute_capability().map_err(DeviceError::driver(asking))?;
        let multiprocessors = context
            .attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
            .map_err(DeviceError::driver(asking))?;
        let memory_bytes = context.total_mem().map_err(DeviceError::driver(asking))? as u64;
        let stream = context.default_stream();
        let transfers =
            Transfers::new(&context, &stream).map_err(DeviceError::driver("to make a stream for copies"))?;
        let driver = Driver {
            stream,
            transfers: Arc::new(transfers),
            modules: Modules::new(context.clone(), cache),
            context,
            staging: Mutex::default(),
        };
        Ok(Self(Arc::new(Inner {
            driver: Some(driver),
            capability: major.unsigned_abs() * 10 + minor.unsigned_abs(),
            multiprocessors: multiprocessors.unsigned_abs(),
            memory_bytes,
            arena: Mutex::default(),
        })))
    }

    /// A device that is only imagined, with so much memory: it needs neither driver nor GPU, computes nothing, and keeps
    /// the account of the memory that work on it would take.
    pub fn imagined(memory_bytes: u64) -> Self {
        Self(Arc::new(Inner {
            driver: None,
            capability: 86,
            multiprocessors: 48,
            memory_bytes,
            arena: Mutex::default(),
        }))
    }

    /// Who the device is.
    ///
    /// # Errors
    /// [`DeviceError::Driver`] if the driver does not answer.
    pub fn report(&self) -> Result<Report, DeviceError> {
        let asking = "to describe the device";
        let Some(driver) = &self.0.driver else {
            return Ok(Report {
                name: "imagined".to_owned(),
                capability: (self.0.capability / 10, self.0.capability % 10),
                driver: (0, 0),
                nvrtc: None,
                multiprocessors: self.0.multiprocessors,
                memory_bytes: self.0.memory_bytes,
            });
        };
        let mut version = 0;
        // SAFETY: the driver is present, as this device shows; the pointer is to a live integer.
        let answer = unsafe { sys::cuDriverGetVersion(&raw mut version) };
        answer.result().map_err(DeviceError::driver(asking))?;
        let version = version.unsigned_abs();
        Ok(Report {
            name: driver.context.name().map_err(DeviceError::driver(asking))?,
            capability: (self.0.capability / 10, self.0.capability % 10),
            driver: (version / 1000, version % 1000 / 10),
            nvrtc: compile::nvrtc_version().ok(),
            multiprocessors: self.0.multiprocessors,
            memory_bytes: self.0.memory_bytes,
        })
    }

    /// Streaming multiprocessors.
    pub fn multiprocessors(&self) -> u32 {
        self.0.multiprocessors
    }

    /// Compute capability as one number: 86 for 8.6.
    pub fn capability(&self) -> u32 {
        self.0.capability
    }

    /// Memory of the card, bytes.
    pub fn memory_bytes(&self) -> u64 {
        self.0.memory_bytes
    }

    /// What the arena holds.
    pub fn usage(&self) -> Usage {
        locked(&self.0.arena).usage()
    }

    /// A copy of `host` on the device.
    ///
    /// # Errors
    /// As [`CudaDevice::scratch`] and [`CudaDevice::write`].
    pub fn upload<T: Pod>(&self, host: &[T]) -> Result<Buffer<T>, DeviceError> {
        let mut buffer = self.scratch(host.len())?;
        self.write(host, &mut buffer.view_mut())?;
        Ok(buffer)
    }

    /// Begins to copy `host` to the device, beside what is computed there.
    ///
    /// # Errors
    /// As [`CudaDevice::upload`].
    pub fn send<T: Pod>(&self, host: &[T]) -> Result<Arriving<T>, DeviceError> {
        let buffer = self.scratch(host.len())?;
        let Some(driver) = self.0.driver.as_ref().filter(|_| !host.is_empty()) else {
            return Ok(Arriving::arrived(buffer));
        };
        let doing = || format!("to copy {} bytes to the device", size_of_val(host));
        driver.transfers.send(host, buffer).map_err(|e| DeviceError::of(e, doing))
    }

    /// Begins to copy `buffer`, as all work queued before leaves it, to the host, beside what is queued from now on.
    ///
    /// # Errors
    /// As [`CudaDevice::read`].
    pub fn bring<T: Pod>(&self, buffer: Buffer<T>) -> Result<Leaving<T>, DeviceError> {
        let Some(driver) = self.0.driver.as_ref().filter(|_| !buffer.is_empty()) else {
            return Ok(Leaving::nowhere(buffer));
        };
        let bytes = buffer.len() * size_of::<T>();
        let doing = || format!("to copy {bytes} bytes from the device");
        driver.transfers.fetch(buffer).map_err(|e| DeviceError::of(e, doing))
    }

    /// Queues the copy of `host` to `to`, which is as long. `host` may be changed once this returns.
    ///
    /// # Errors
    /// [`DeviceError::Driver`].
    pub fn write<T: Pod>(&self, host: &[T], to: &mut ViewMut<'_, T>) -> Result<(), DeviceError> {
        assert_eq!(host.len(), to.len(), "a copy to the device: elements");
        let Some(driver) = self.0.driver.as_ref().filter(|_| !host.is_empty()) else { return Ok(()) };
        let bytes: &[u8] = bytemuck::cast_slice(host);
        driver.staged(
            || format!("to copy {} bytes to the device", bytes.len()),
            // SAFETY: the view is of so many bytes of this device, and borrowed for writing; what is queued on the stream
            // later comes after the copy.
            |staging| unsafe { staging.write(&driver.stream, to.address(), bytes) },
        )
    }

    /// A copy of `device` in host memory, after all work queued before has been done.
    ///
    /// # Errors
    /// As [`CudaDevice::read`].
    pub fn download<T: Pod>(&self, device: &View<'_, T>) -> Result<Vec<T>, DeviceError> {
        let mut host = Vec::with_capacity(device.len());
        self.read(device, |piece| host.extend_from_slice(piece))?;
        Ok(host)
    }

    /// Copies `from` to `host`, which is as long, after all work queued before has been done.
    ///
    /// # Errors
    /// As [`CudaDevice::read`].
    pub fn fetch<T: Pod>(&self, from: &View<'_, T>, host: &mut [T]) -> Result<(), DeviceError> {
        assert_eq!(host.len(), from.len(), "a copy from the device: elements");
        let mut rest = host;
        self.read(from, |piece| {
            let (part, after) = std::mem::take(&mut rest).split_at_mut(piece.len());
            part.copy_from_slice(piece);
            rest = after;
        })
    }

    /// Hands `each` the content of `device` piece by piece, after all work queued before has been done; the next piece is
    /// on its way meanwhile. `each` must not use the device.
    ///
    /// # Errors
    /// [`DeviceError::Driver`]; a kernel that failed shows here too.
    pub fn read<T: Pod>(&self, device: &View<'_, T>, mut each: impl FnMut(&[T])) -> Result<(), DeviceError> {
        let count = device.len() * size_of::<T>();
        let Some(driver) = &self.0.driver else {
            let ones = vec![0xFFu8; HALF_BYTES.min(count)];
            let pieces = (0..count).step_by(HALF_BYTES).map(|begin| HALF_BYTES.min(count - begin));
            pieces.for_each(|len| numbers(&ones[..len], &mut each));
            return Ok(());
        };
        driver.staged(
            || format!("to copy {count} bytes from the device"),
            // SAFETY: the view is of so many bytes of this device.
            |staging| unsafe {
                staging.read(&driver.stream, device.address(), count, |bytes| numbers(bytes, &mut each))
            },
        )
    }

    /// Queues the copy of `from` to `to`, which is as long.
    ///
    /// # Errors
    /// As [`CudaDevice::write`].
    pub fn copy<T>(&self, from: &View<'_, T>, to: &mut ViewMut<'_, T>) -> Result<(), DeviceError> {
        assert_eq!(from.len(), to.len(), "a copy within the device: elements");
        let bytes = from.len() * size_of::<T>();
        let Some(driver) = self.0.driver.as_ref().filter(|_| bytes > 0) else { return Ok(()) };
        driver.bind()?;
        // SAFETY: both views are of so many bytes of this device, and the borrows keep them apart.
        let queued = unsafe {
            result::memcpy_dtod_async(to.address(), from.address(), bytes, driver.stream.cu_stream())
        };
        queued.map_err(|e| DeviceError::of(e, || format!("to copy {bytes} bytes within the device")))
    }

    /// Queues the filling of all bytes of `to` with `byte`.
    ///
    /// # Errors
    /// As [`CudaDevice::write`].
    pub fn fill<T: Pod>(&self, byte: u8, to: &mut ViewMut<'_, T>) -> Result<(), DeviceError> {
        let bytes = to.len() * size_of::<T>();
        let Some(driver) = self.0.driver.as_ref().filter(|_| bytes > 0) else { return Ok(()) };
        driver.bind()?;
        // SAFETY: the view is of so many bytes of this device, and any bytes are a `T`.
        let queued = unsafe { result::memset_d8_async(to.address(), byte, bytes, driver.stream.cu_stream()) };
        queued.map_err(|e| DeviceError::of(e, || format!("to fill {bytes} bytes of the device")))
    }

    /// Memory for `len` elements, whose content is undefined until it is written.
    ///
    /// # Errors
    /// [`DeviceError::OutOfMemory`], [`DeviceError::Driver`].
    pub fn scratch<T>(&self, len: usize) -> Result<Buffer<T>, DeviceError> {
        let bytes = len * size_of::<T>();
        let address = if bytes == 0 { 0 } else { self.take(bytes)? };
        Ok(Buffer::new(self.clone(), address, len))
    }

    fn take(&self, bytes: usize) -> Result<u64, DeviceError> {
        let mut arena = locked(&self.0.arena);
        if let Some(address) = arena.take(bytes) {
            return Ok(address);
        }
        let address = match &self.0.driver {
            None => self.imagine(&mut arena, bytes)?,
            Some(driver) => driver.reserve(&mut arena, bytes, self.0.memory_bytes)?,
        };
        arena.reserved(bytes);
        Ok(address)
    }

    /// An address of nothing, as long as the card would have room; blocks are as far from each other as no block is long.
    fn imagine(&self, arena: &mut Arena, bytes: usize) -> Result<u64, DeviceError> {
        if arena.usage().reserved_bytes + bytes as u64 > self.0.memory_bytes {
            arena.drain();
        }
        let usage = arena.usage();
        if usage.reserved_bytes + bytes as u64 > self.0.memory_bytes {
            return Err(out_of_memory(bytes, &usage, self.0.memory_bytes));
        }
        Ok((usage.reservations + 1) << BLOCK_BITS_IMAGINED)
    }

    pub(super) fn give(&self, address: u64, bytes: usize) {
        if bytes > 0 {
            locked(&self.0.arena).give(address, bytes);
        }
    }

    /// Waits until all work queued so far is done.
    ///
    /// # Errors
    /// [`DeviceError::Driver`]; a kernel that failed shows here too.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        let Some(driver) = &self.0.driver else { return Ok(()) };
        driver.stream.synchronize().map_err(DeviceError::driver("to finish queued work"))
    }

    /// Whether a view begins on 16 bytes, so that kernels may read it in float4.
    pub fn is_aligned(&self, view: &impl Placed) -> bool {
        view.address().is_multiple_of(16)
    }

    /// Begins a launch of kernel `entry` of `source`, compiling the source if this device has not seen it yet.
    ///
    /// # Errors
    /// [`DeviceError::LibraryMissing`], [`DeviceError::Compile`], [`DeviceError::Driver`] when the source is first
    /// used; [`DeviceError::NoSuchKernel`] for a name that is not in it.
    pub fn launch(&self, source: &Source, entry: &'static str) -> Result<Launch<'_>, DeviceError> {
        let Some(driver) = &self.0.driver else { return Ok(Launch::imagined(entry)) };
        let kernel = driver.modules.of(source, self.0.capability)?.kernel(source.name, entry)?;
        Ok(Launch::new(&driver.stream, entry, kernel))
    }

    /// Compiles and loads `source` now, not at its first launch.
    ///
    /// # Errors
    /// As [`CudaDevice::launch`].
    pub fn prepare(&self, source: &Source) -> Result<(), DeviceError> {
        let Some(driver) = &self.0.driver else { return Ok(()) };
        driver.modules.of(source, self.0.capability).map(|_| ())
    }
}

impl CudaDevice {
    /// Compiles and loads the kernels of all rooms, several at a time.
    ///
    /// # Errors
    /// As [`CudaDevice::launch`].
    pub fn prepare_all(&self) -> Result<(), DeviceError> {
        super::SOURCES.par_iter().try_for_each(|source| self.prepare(source))
    }

    /// A point in the device's time, after all that was queued before; none on an imagined device.
    pub(super) fn event(&self) -> Result<Option<CudaEvent>, DeviceError> {
        let Some(driver) = &self.0.driver else { return Ok(None) };
        let flags = Some(sys::CUevent_flags::CU_EVENT_DEFAULT);
        driver.stream.record_event(flags).map(Some).map_err(DeviceError::driver("to record an event"))
    }

    /// A number that the driver knows about the device; 0 of an imagined one.
    pub(super) fn attribute(&self, attribute: CUdevice_attribute) -> Result<i32, DeviceError> {
        let Some(driver) = &self.0.driver else { return Ok(0) };
        driver.context.attribute(attribute).map_err(DeviceError::driver("to describe the device"))
    }
}

impl Driver {
    fn bind(&self) -> Result<(), DeviceError> {
        self.context.bind_to_thread().map_err(DeviceError::driver("to be called from this thread"))
    }

    /// A copy by way of pinned memory.
    fn staged(
        &self,
        doing: impl Fn() -> String,
        copy: impl FnOnce(&mut Staging) -> Result<(), DriverError>,
    ) -> Result<(), DeviceError> {
        let mut staging = locked(&self.staging);
        if staging.is_none() {
            *staging = Some(Staging::new(&self.context).map_err(|e| DeviceError::of(e, &doing))?);
        }
        staging.as_mut().map_or(Ok(()), copy).map_err(|e| DeviceError::of(e, doing))
    }

    /// So many bytes; what waits in the arena is given back first if there is no room otherwise.
    fn reserve(&self, arena: &mut Arena, bytes: usize, card_bytes: u64) -> Result<u64, DeviceError> {
        self.bind()?;
        let full = |error: &DriverError| error.0 == sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
        // SAFETY: the context is current; the arena keeps the block and frees it once.
        let mut reserved = unsafe { result::malloc_sync(bytes) };
        if reserved.as_ref().is_err_and(full) && arena.usage().reserved_bytes > arena.usage().in_use_bytes {
            self.free(&arena.drain());
            // SAFETY: as above.
            reserved = unsafe { result::malloc_sync(bytes) };
        }
        reserved.map_err(|error| {
            if full(&error) {
                return out_of_memory(bytes, &arena.usage(), card_bytes);
            }
            DeviceError::of(error, || format!("to reserve {bytes} bytes"))
        })
    }

    /// Gives blocks back to the driver, which waits for work that still uses them.
    fn free(&self, blocks: &[u64]) {
        if self.bind().is_ok() {
            for &address in blocks {
                // SAFETY: the arena got the block from `malloc_sync` and has just let go of it. Of a lost device nothing
                // can be freed, nor need be.
                let _ = unsafe { result::free_sync(address) };
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let arena = self.arena.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Every buffer holds its device: none is given out any more.
        let blocks = arena.drain();
        if let Some(driver) = &self.driver {
            driver.free(&blocks);
        }
    }
}

fn out_of_memory(asked_bytes: usize, usage: &Usage, card_bytes: u64) -> DeviceError {
    DeviceError::OutOfMemory { asked_bytes: asked_bytes as u64, in_use_bytes: usage.in_use_bytes, card_bytes }
}

/// Bytes of pinned memory as numbers.
fn numbers<T: Pod>(bytes: &[u8], each: &mut impl FnMut(&[T])) {
    match bytemuck::try_cast_slice(bytes) {
        Ok(numbers) => each(numbers),
        // Not pinned memory, then, but the ones of an imagined device.
        Err(_) => {
            each(&vec![bytemuck::pod_read_unaligned(&bytes[..size_of::<T>()]); bytes.len() / size_of::<T>()])
        }
    }
}

impl fmt::Debug for CudaDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CudaDevice")
            .field("ordinal", &self.0.driver.as_ref().map(|driver| driver.context.ordinal()))
            .field("capability", &self.0.capability)
            .finish_non_exhaustive()
    }
}
