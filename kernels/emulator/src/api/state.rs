//! What the device knows: memory, modules, streams, events, by handle.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

use super::order::Order;
use super::settings::{Settings, settings};
use super::status::Status;
use super::{Handle, leaks};
use crate::exec::check::{Allocations, Range};
use crate::exec::program::{Loaded, Program};
use crate::exec::written::Written;

/// Everything that lives behind the calls.
#[derive(Default)]
pub(super) struct State {
    pub initialized: bool,
    /// How often the primary context was retained and not released.
    pub retained: u32,
    /// The error of the first faulty kernel.
    pub sticky: Option<Status>,
    pub buffers: BTreeMap<u64, Buffer>,
    /// Device memory in use, bytes.
    pub used_bytes: u64,
    pub streams: BTreeSet<u64>,
    pub events: BTreeMap<u64, Event>,
    /// Who has waited for whom.
    pub order: Order,
    pub modules: BTreeMap<u64, Arc<Loaded>>,
    pub functions: BTreeMap<u64, Function>,
    /// Allocations and launches asked for so far, for faults to order.
    pub allocations_asked: u64,
    pub launches_asked: u64,
    /// Whether the device is gone; nothing brings it back.
    pub lost: bool,
    last_handle: u64,
}

/// The handle of the primary context.
pub(super) const PRIMARY_CONTEXT: u64 = 0x10;

/// An event.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    pub timed: bool,
    pub recorded: Option<Instant>,
}

/// A kernel somebody has asked for.
#[derive(Debug, Clone)]
pub(super) struct Function {
    pub module: u64,
    pub program: Arc<Program>,
    /// Dynamic shared memory a launch may ask for, bytes.
    pub max_dynamic_shared: u32,
}

/// A piece of memory the device may touch, with a red zone on either side.
#[derive(Debug)]
pub(super) struct Buffer {
    pub bytes: u64,
    pub kind: BufferKind,
    /// Which of the allocations asked for it is, from 1.
    pub number: u64,
    /// What of it was written, in checked runs; the host writes its own memory unseen.
    pub written: Option<Arc<Written>>,
    start: *mut u8,
    layout: Layout,
}

// SAFETY: the buffer is reached through raw addresses only, whose use the driver's callers order themselves.
unsafe impl Send for Buffer {}

/// Whose memory it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BufferKind {
    Device,
    /// Pinned memory of the host.
    Host,
}

/// Bytes around a buffer that belong to nobody, and its alignment.
const RED_ZONE: usize = 256;

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(self.start, self.layout) };
    }
}

/// The state, after `cuInit`.
pub(super) fn state() -> Result<(MutexGuard<'static, State>, Settings), Status> {
    let settings = settings()?;
    let state = lock();
    if !state.initialized {
        return Err(Status::NotInitialized);
    }
    if state.lost {
        return Err(Status::DeviceUnavailable);
    }
    Ok((state, settings))
}

/// The state, provided no kernel has faulted and the primary context is held.
pub(super) fn healthy() -> Result<(MutexGuard<'static, State>, Settings), Status> {
    let (state, settings) = state()?;
    if state.retained == 0 {
        return Err(Status::InvalidContext);
    }
    match state.sticky {
        Some(status) => Err(status),
        None => Ok((state, settings)),
    }
}

/// The settings, after `cuInit`.
pub(super) fn ready() -> Result<Settings, Status> {
    state().map(|(_state, settings)| settings)
}

/// The settings, provided no kernel has faulted and the primary context is held.
pub(super) fn sound() -> Result<Settings, Status> {
    healthy().map(|(_state, settings)| settings)
}

/// The state as it is.
pub(super) fn lock() -> MutexGuard<'static, State> {
    // A panic in a call leaves tables whole: each change is one insertion or removal.
    cell().lock().unwrap_or_else(PoisonError::into_inner)
}

/// The state as it is, unless another thread holds it.
pub(super) fn try_lock() -> Option<MutexGuard<'static, State>> {
    match cell().try_lock() {
        Ok(state) => Some(state),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

fn cell() -> &'static Mutex<State> {
    static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);
    &STATE
}

impl State {
    /// A handle nobody has.
    pub fn fresh_handle(&mut self) -> u64 {
        self.last_handle = self.last_handle.max(0x1000) + 0x10;
        self.last_handle
    }

    /// Whether a stream exists; 0 to 2 are the default streams.
    pub fn check_stream(&self, stream: Handle) -> Result<(), Status> {
        let handle = stream as u64;
        if handle <= 2 || self.streams.contains(&handle) { Ok(()) } else { Err(Status::InvalidHandle) }
    }

    /// New memory; its address.
    pub fn allocate(&mut self, bytes: usize, kind: BufferKind, settings: &Settings) -> Result<u64, Status> {
        if bytes == 0 {
            return Err(Status::InvalidValue);
        }
        self.allocations_asked += 1;
        if self.allocations_asked == settings.faults.allocation {
            return Err(Status::OutOfMemory);
        }
        let device_bytes = if kind == BufferKind::Device { bytes as u64 } else { 0 };
        if self.used_bytes.saturating_add(device_bytes) > settings.memory_bytes {
            return Err(Status::OutOfMemory);
        }
        let whole = bytes.checked_add(2 * RED_ZONE).ok_or(Status::OutOfMemory)?;
        let layout = Layout::from_size_align(whole, RED_ZONE).map_err(|_| Status::OutOfMemory)?;
        // SAFETY: the layout is not empty. Checked runs see what they never wrote as not-a-numbers.
        let start = unsafe { if settings.check { alloc(layout) } else { alloc_zeroed(layout) } };
        if start.is_null() {
            return Err(Status::OutOfMemory);
        }
        if settings.check {
            // SAFETY: the memory is ours and that long.
            unsafe { start.write_bytes(0xff, whole) };
        }
        let address = start as u64 + RED_ZONE as u64;
        self.used_bytes += device_bytes;
        let written =
            (settings.check && kind == BufferKind::Device).then(|| Arc::new(Written::nothing(bytes as u64)));
        let number = self.allocations_asked;
        self.buffers.insert(address, Buffer { bytes: bytes as u64, kind, number, written, start, layout });
        Ok(address)
    }

    /// Gives memory back.
    pub fn free(&mut self, address: u64, kind: BufferKind) -> Result<(), Status> {
        match self.buffers.get(&address) {
            Some(buffer) if buffer.kind == kind => {
                if kind == BufferKind::Device {
                    self.used_bytes -= buffer.bytes;
                }
                self.buffers.remove(&address);
                self.order.forget(address);
                Ok(())
            }
            _ => Err(Status::InvalidValue),
        }
    }

    /// Checks that `bytes` at a device address lie within one buffer or the variables of one module.
    pub fn check_device(&self, address: u64, bytes: usize) -> Result<(), Status> {
        let end = address.checked_add(bytes as u64).ok_or(Status::InvalidValue)?;
        let buffer = self.buffers.range(..=address).next_back();
        let inside = buffer.is_some_and(|(start, buffer)| end <= start + buffer.bytes)
            || self.modules.values().any(|module| {
                let (from, to) = module.storage_range();
                from <= address && end <= to
            });
        if inside { Ok(()) } else { Err(Status::InvalidValue) }
    }

    /// All a kernel may touch.
    pub fn allocations(&self) -> Allocations {
        let buffers = self.buffers.iter().map(|(&start, buffer)| Range {
            start,
            end: start + buffer.bytes,
            written: buffer.written.clone(),
        });
        let variables = self.modules.values().flat_map(|module| module.variables.values());
        let variables =
            variables.map(|&(start, bytes)| Range { start, end: start + bytes as u64, written: None });
        Allocations::new(buffers.chain(variables).collect())
    }

    /// What was written of the buffer that an address lies in, and how far into it.
    pub fn written_at(&self, address: u64) -> Option<(&Arc<Written>, u64)> {
        let (start, buffer) = self.buffers.range(..=address).next_back()?;
        let offset = address - start;
        Some((buffer.written.as_ref().filter(|_| offset < buffer.bytes)?, offset))
    }

    /// Whether work of `stream` is in order with what others do, in checked runs; it uses the buffers at these addresses,
    /// true to write. Work that is not sticks as a failed launch.
    pub fn check_order(
        &mut self,
        settings: &Settings,
        stream: Handle,
        what: &str,
        addresses: impl IntoIterator<Item = (u64, bool)>,
    ) -> Result<(), Status> {
        if !settings.check {
            return Ok(());
        }
        let of = |(address, writes): (u64, bool)| {
            let (&start, buffer) = self.buffers.range(..=address).next_back()?;
            (buffer.kind == BufferKind::Device && address - start < buffer.bytes).then_some((start, writes))
        };
        let buffers: Vec<_> = addresses.into_iter().filter_map(of).collect();
        self.order.issue(stream as u64, what, &buffers).map_err(|why| {
            eprintln!("emulated GPU: {why}");
            *self.sticky.insert(Status::LaunchFailed)
        })
    }

    /// What `cuDevicePrimaryCtxReset` does; checked runs are told what was never freed.
    pub fn reset_context(&mut self, settings: &Settings) {
        if settings.check {
            leaks::tell(self, "the context ends");
        }
        self.sticky = None;
        self.buffers.clear();
        self.used_bytes = 0;
        self.streams.clear();
        self.events.clear();
        self.order = Order::default();
        self.modules.clear();
        self.functions.clear();
    }
}
