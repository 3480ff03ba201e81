//! Memory spaces: from the address a lane names to the byte on the host, and loads and stores there.
//!
//! A device address is the host address of the same byte, so copies between the two are plain. Shared and
//! local addresses are offsets into the block's and the thread's memory; as generic addresses they live in
//! windows where no host address can be. Bounds of shared, local and parameter memory and the alignment of
//! every access are always checked; bounds of device memory only in checked runs, against the allocations.

use super::check::{Allocations, Touch};
use super::count::{Access, Counters, Mode};
use super::fault::{Fault, FaultKind};
use super::lane::{LANES, Slot};
use super::shadow::Shadow;
use crate::ptx::ast::Space;

/// Where shared memory begins among generic addresses.
pub const SHARED_WINDOW: u64 = 1 << 60;
/// Where local memory begins among generic addresses.
pub const LOCAL_WINDOW: u64 = 1 << 61;
/// Size in bytes of each window.
const WINDOW_BYTES: u64 = 1 << 32;
/// No device memory lies below; catches null pointers and small offsets from them.
const LOWEST_ADDRESS: u64 = 1 << 16;

/// A buffer on a boundary of 256 bytes, zeroed.
#[derive(Debug, Default)]
pub struct Aligned {
    lines: Vec<Line>,
    bytes: usize,
}

#[derive(Debug, Clone, Copy)]
#[repr(C, align(256))]
struct Line([u8; 256]);

impl Aligned {
    /// `bytes` zeros.
    pub fn zeroed(bytes: usize) -> Self {
        Self { lines: vec![Line([0; 256]); bytes.div_ceil(256)], bytes }
    }

    /// The first byte; writing through it is the caller's responsibility, as with any device memory.
    pub fn as_ptr(&self) -> *mut u8 {
        self.lines.as_ptr().cast::<u8>().cast_mut()
    }

    /// The size asked for.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The base of an address.
#[derive(Debug, Clone, Copy)]
pub(super) enum Base {
    /// The offset alone.
    None,
    /// A 32-bit register at an offset in the frame.
    Word(u32),
    /// A 64-bit register at an offset in the frame.
    Double(u32),
}

/// An address operand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address {
    pub space: Space,
    pub base: Base,
    pub offset: i64,
}

impl Address {
    /// The address each lane names.
    ///
    /// # Safety
    /// The base register lies in the frame at `regs`.
    #[inline(always)]
    pub unsafe fn of_lanes(&self, regs: *const u8) -> [u64; LANES] {
        let offset = self.offset as u64;
        let mut out = [offset; LANES];
        match self.base {
            Base::None => {}
            Base::Word(at) => {
                // SAFETY: the caller's promise.
                let base = unsafe { &*regs.add(at as usize).cast::<[u32; LANES]>() };
                for lane in 0..LANES {
                    out[lane] = u64::from(base[lane]).wrapping_add(offset);
                }
            }
            Base::Double(at) => {
                // SAFETY: the caller's promise.
                let base = unsafe { &*regs.add(at as usize).cast::<[u64; LANES]>() };
                for lane in 0..LANES {
                    out[lane] = base[lane].wrapping_add(offset);
                }
            }
        }
        out
    }
}

/// Moves elements between memory and registers: `(host addresses, active lanes, frame, register offsets)`.
pub(super) type MoveFn = unsafe fn(&[u64; LANES], u32, *mut u8, &[u32; 8]);

/// A load or store.
#[derive(Debug)]
pub(super) struct Transfer {
    pub address: Address,
    /// Bytes per lane, all elements together.
    pub bytes: u32,
    pub run: MoveFn,
    pub regs: [u32; 8],
}

/// What the threads of a block can reach.
pub(super) struct BlockMemory<'a> {
    pub shared: *mut u8,
    pub shared_bytes: u64,
    pub params: *mut u8,
    pub param_bytes: u64,
    /// Local memory of the warp in turn: `local_bytes` per lane.
    pub local: *mut u8,
    pub local_bytes: u64,
    /// The warp in turn.
    pub warp: u32,
    pub allocations: &'a Allocations,
    /// Index of the allocation that was touched last.
    pub last_hit: usize,
    pub shadow: Shadow,
    pub counters: Counters,
    pub jump_limit: u64,
    /// Compute capability of the device.
    pub sm: u32,
}

impl BlockMemory<'_> {
    /// Turns the addresses lanes name into host addresses of `bytes` each; inactive lanes hold nonsense.
    pub fn resolve<M: Mode>(
        &mut self,
        space: Space,
        named: &mut [u64; LANES],
        mask: u32,
        bytes: u32,
        touch: Touch,
    ) -> Result<(), Box<Fault>> {
        let mut folded = 0;
        for lane in 0..LANES {
            folded |= if mask & 1 << lane != 0 { named[lane] } else { 0 };
        }
        if folded & u64::from(bytes - 1) != 0 {
            return Err(misaligned(named, mask, bytes));
        }
        match space {
            Space::Global | Space::Const => self.device::<M>(named, mask, bytes, touch),
            Space::Shared => {
                let offsets = *named;
                bounded(named, mask, bytes, self.shared as u64, self.shared_bytes, "shared memory")?;
                if M::CHECK {
                    self.shadow.touch(&offsets, mask, bytes, self.warp, touch)?;
                }
                Ok(())
            }
            Space::Local => {
                bounded(named, mask, bytes, self.local as u64, self.local_bytes, "a thread's local memory")?;
                for lane in 0..LANES {
                    named[lane] = named[lane].wrapping_add(lane as u64 * self.local_bytes);
                }
                Ok(())
            }
            Space::Param => {
                bounded(named, mask, bytes, self.params as u64, self.param_bytes, "the kernel's parameters")
            }
            Space::Generic => self.generic::<M>(named, mask, bytes, touch),
        }
    }

    /// Lanes may name different spaces; each kind is resolved as if it stood alone.
    fn generic<M: Mode>(
        &mut self,
        named: &mut [u64; LANES],
        mask: u32,
        bytes: u32,
        touch: Touch,
    ) -> Result<(), Box<Fault>> {
        let (shared, local) = (windowed(named, mask, SHARED_WINDOW), windowed(named, mask, LOCAL_WINDOW));
        for (space, part, window) in [
            (Space::Shared, shared, SHARED_WINDOW),
            (Space::Local, local, LOCAL_WINDOW),
            (Space::Global, mask & !shared & !local, 0),
        ] {
            if part != 0 {
                let mut offsets = named.map(|address| address.wrapping_sub(window));
                self.resolve::<M>(space, &mut offsets, part, bytes, touch)?;
                for lane in active(part) {
                    named[lane] = offsets[lane];
                }
            }
        }
        Ok(())
    }

    /// Counts an access as the lanes name it.
    pub fn count(
        &mut self,
        space: Space,
        access: Access,
        named: &[u64; LANES],
        mask: u32,
        bytes: u32,
        pc: u32,
    ) {
        if mask == 0 {
            return;
        }
        match space {
            Space::Global => self.counters.device(access, named, mask, bytes),
            Space::Shared => self.counters.shared(access, named, mask, bytes, pc),
            Space::Local => self.counters.local_bytes += u64::from(bytes * mask.count_ones()),
            Space::Const | Space::Param => {}
            Space::Generic => {
                let (shared, local) =
                    (windowed(named, mask, SHARED_WINDOW), windowed(named, mask, LOCAL_WINDOW));
                let offsets = named.map(|address| address.wrapping_sub(SHARED_WINDOW));
                self.count(Space::Shared, access, &offsets, shared, bytes, pc);
                self.count(Space::Local, access, named, local, bytes, pc);
                self.count(Space::Global, access, named, mask & !shared & !local, bytes, pc);
            }
        }
    }

    fn device<M: Mode>(
        &mut self,
        named: &[u64; LANES],
        mask: u32,
        bytes: u32,
        touch: Touch,
    ) -> Result<(), Box<Fault>> {
        let impossible = |address: u64| address.wrapping_sub(LOWEST_ADDRESS) >= SHARED_WINDOW;
        let mut found = false;
        for lane in 0..LANES {
            found |= (mask & 1 << lane != 0) & impossible(named[lane]);
        }
        if found {
            let lane = active(mask).find(|&lane| impossible(named[lane])).unwrap_or(0);
            let what = format!("{bytes} bytes at {:#x}, which is no device address", named[lane]);
            return Err(Fault::new(FaultKind::IllegalAddress, Some(lane as u32), what));
        }
        if M::CHECK && !self.settled(named, mask, bytes, touch) {
            for lane in active(mask) {
                // `cvta.param` makes device addresses of parameters.
                let in_params = named[lane].wrapping_sub(self.params as u64);
                if in_params.saturating_add(u64::from(bytes)) <= self.param_bytes {
                    continue;
                }
                let Some(range) = self.allocations.find(named[lane], bytes, &mut self.last_hit) else {
                    let place = self.allocations.describe(named[lane]);
                    let what = format!("{bytes} bytes of device memory at {:#x}: {place}", named[lane]);
                    return Err(Fault::new(FaultKind::IllegalAddress, Some(lane as u32), what));
                };
                if !range.touch(named[lane], bytes, touch) {
                    let place = self.allocations.describe(named[lane]);
                    let what = format!(
                        "reads {bytes} bytes of device memory at {:#x}, not all of which were ever written: {place}",
                        named[lane]
                    );
                    return Err(Fault::new(FaultKind::UninitialisedRead, Some(lane as u32), what));
                }
            }
        }
        Ok(())
    }

    /// Whether one look at all that a warp touches of device memory tells that it may.
    fn settled(&mut self, named: &[u64; LANES], mask: u32, bytes: u32, touch: Touch) -> bool {
        let (mut low, mut high) = (u64::MAX, 0);
        for lane in 0..LANES {
            let on = mask & 1 << lane != 0;
            low = low.min(if on { named[lane] } else { u64::MAX });
            high = high.max(if on { named[lane] } else { 0 });
        }
        let len = high.wrapping_sub(low).saturating_add(u64::from(bytes));
        let span = u32::try_from(len).ok();
        let range = span.and_then(|span| self.allocations.find(low, span, &mut self.last_hit));
        range.is_some_and(|range| range.touch_span(named, mask, bytes, (low, len), touch))
    }
}

/// The lanes whose generic addresses lie in a window.
fn windowed(named: &[u64; LANES], mask: u32, window: u64) -> u32 {
    let mut found = 0;
    for lane in active(mask) {
        found |= u32::from(named[lane].wrapping_sub(window) < WINDOW_BYTES) << lane;
    }
    found
}

/// The lanes of a mask, ascending.
pub(super) fn active(mask: u32) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |lane| mask >> lane & 1 != 0)
}

#[inline(always)]
fn bounded(
    named: &mut [u64; LANES],
    mask: u32,
    bytes: u32,
    base: u64,
    size: u64,
    what: &str,
) -> Result<(), Box<Fault>> {
    // An empty space has no last valid offset: every access is beyond it.
    let last = size.wrapping_sub(u64::from(bytes));
    let mut beyond = size < u64::from(bytes);
    for lane in 0..LANES {
        beyond |= (mask & 1 << lane != 0) & (named[lane] > last);
    }
    if beyond {
        return Err(out_of_bounds(named, mask, bytes, size, what));
    }
    for address in named.iter_mut() {
        *address = base.wrapping_add(*address);
    }
    Ok(())
}

#[cold]
fn out_of_bounds(named: &[u64; LANES], mask: u32, bytes: u32, size: u64, what: &str) -> Box<Fault> {
    let lane = active(mask).find(|&lane| named[lane].saturating_add(u64::from(bytes)) > size).unwrap_or(0);
    let offset = named[lane] as i64;
    let what = format!("{bytes} bytes at offset {offset} of {what}, which has {size} bytes");
    Fault::new(FaultKind::IllegalAddress, Some(lane as u32), what)
}

#[cold]
fn misaligned(named: &[u64; LANES], mask: u32, bytes: u32) -> Box<Fault> {
    let lane = active(mask).find(|&lane| named[lane] & u64::from(bytes - 1) != 0).unwrap_or(0);
    let what = format!("{bytes} bytes at address {:#x}, which is no multiple of {bytes}", named[lane]);
    Fault::new(FaultKind::MisalignedAddress, Some(lane as u32), what)
}

/// The load of `count` elements of `bytes` each, sign-extended or not, into registers of `slot`.
pub(super) fn load_fn(bytes: usize, signed: bool, slot: Slot, count: usize) -> Option<MoveFn> {
    macro_rules! pick {
        ($memory:ty, $register:ty) => {
            match count {
                1 => Some(load::<$memory, $register, 1> as MoveFn),
                2 => Some(load::<$memory, $register, 2>),
                4 => Some(load::<$memory, $register, 4>),
                8 => Some(load::<$memory, $register, 8>),
                _ => None,
            }
        };
    }
    match (bytes, signed, slot) {
        (1, false, Slot::Word) => pick!(u8, u32),
        (1, true, Slot::Word) => pick!(i8, u32),
        (2, false, Slot::Word) => pick!(u16, u32),
        (2, true, Slot::Word) => pick!(i16, u32),
        (4, _, Slot::Word) => pick!(u32, u32),
        (1, false, Slot::Double) => pick!(u8, u64),
        (1, true, Slot::Double) => pick!(i8, u64),
        (2, false, Slot::Double) => pick!(u16, u64),
        (2, true, Slot::Double) => pick!(i16, u64),
        (4, false, Slot::Double) => pick!(u32, u64),
        (4, true, Slot::Double) => pick!(i32, u64),
        (8, _, Slot::Double) => pick!(u64, u64),
        _ => None,
    }
}

/// The store of `count` elements of `bytes` each from registers of `slot`.
pub(super) fn store_fn(bytes: usize, slot: Slot, count: usize) -> Option<MoveFn> {
    macro_rules! pick {
        ($memory:ty, $register:ty) => {
            match count {
                1 => Some(store::<$memory, $register, 1> as MoveFn),
                2 => Some(store::<$memory, $register, 2>),
                4 => Some(store::<$memory, $register, 4>),
                8 => Some(store::<$memory, $register, 8>),
                _ => None,
            }
        };
    }
    match (bytes, slot) {
        (1, Slot::Word) => pick!(u8, u32),
        (2, Slot::Word) => pick!(u16, u32),
        (4, Slot::Word) => pick!(u32, u32),
        (1, Slot::Double) => pick!(u8, u64),
        (2, Slot::Double) => pick!(u16, u64),
        (4, Slot::Double) => pick!(u32, u64),
        (8, Slot::Double) => pick!(u64, u64),
        _ => None,
    }
}

/// # Safety
/// Active lanes name `N` readable elements, `regs` are registers of `R` in the frame.
unsafe fn load<M: Widen<R>, R: Copy, const N: usize>(
    from: &[u64; LANES],
    mask: u32,
    frame: *mut u8,
    regs: &[u32; 8],
) {
    // SAFETY: `resolve` bounded the addresses as far as it can; beyond that the kernel's word stands, as on a
    // device. Reads are unaligned-safe, and registers are whole.
    let one = |lane: usize| unsafe {
        let element = from[lane] as *const M;
        for index in 0..N {
            let value = element.add(index).read_unaligned();
            frame.add(regs[index] as usize).cast::<R>().add(lane).write(value.widen());
        }
    };
    each_lane(mask, one);
}

/// # Safety
/// Active lanes name `N` writable elements, `regs` are registers of `R` in the frame.
unsafe fn store<M: Copy, R: Truncate<M>, const N: usize>(
    to: &[u64; LANES],
    mask: u32,
    frame: *mut u8,
    regs: &[u32; 8],
) {
    // SAFETY: as in `load`. Of two lanes that name one address the higher wins, always.
    let one = |lane: usize| unsafe {
        let element = to[lane] as *mut M;
        for index in 0..N {
            let value = frame.add(regs[index] as usize).cast::<R>().add(lane).read();
            element.add(index).write_unaligned(value.truncate());
        }
    };
    each_lane(mask, one);
}

#[inline(always)]
fn each_lane(mask: u32, one: impl Fn(usize)) {
    if mask == u32::MAX {
        (0..LANES).for_each(one);
    } else {
        active(mask).for_each(one);
    }
}

/// From memory to a register that may be wider.
trait Widen<R>: Copy {
    fn widen(self) -> R;
}

/// From a register to memory that may be narrower.
trait Truncate<M>: Copy {
    fn truncate(self) -> M;
}

macro_rules! widths {
    ($($memory:ty => $register:ty;)*) => {$(
        impl Widen<$register> for $memory {
            #[inline(always)]
            fn widen(self) -> $register {
                self as $register
            }
        }
        impl Truncate<$memory> for $register {
            #[inline(always)]
            fn truncate(self) -> $memory {
                self as $memory
            }
        }
    )*};
}

widths! {
    u8 => u32; i8 => u32; u16 => u32; i16 => u32; u32 => u32;
    u8 => u64; i8 => u64; u16 => u64; i16 => u64; u32 => u64; i32 => u64; u64 => u64;
}
