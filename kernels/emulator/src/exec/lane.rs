//! Registers as arrays of 32 lanes, and functions from lanes to lanes.
//!
//! A warp's registers lie in one flat block. A register of up to 32 bits is 32 words, one of 64 bits is 32
//! double words, a predicate is one word with a bit per lane. An instruction names byte offsets into the
//! block, so that a lane function is three loads, the operation and a store, over all lanes at once.

/// Lanes of a warp.
pub const LANES: usize = 32;

/// How a register lies in a warp's block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// 32 words; holds 8, 16 and 32-bit values.
    Word,
    /// 32 double words.
    Double,
    /// A bit per lane in one word.
    Mask,
}

impl Slot {
    /// Size in bytes within the block. A predicate takes a whole cache line, so that no register straddles two.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Word => 4 * LANES,
            Self::Double => 8 * LANES,
            Self::Mask => 64,
        }
    }
}

/// Byte offsets of an instruction's registers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Slots {
    /// The destination.
    pub dst: u32,
    /// The sources, as many as the opcode has.
    pub src: [u32; 4],
}

/// A lane function over a warp: `(registers, slots, active lanes)`.
///
/// # Safety
/// The block must hold every slot named, in the layout of its [`Slot`], aligned to 8 bytes; the CPU must have
/// the features the function was compiled for (see [`LaneOp::run`]).
pub type LaneFn = unsafe fn(*mut u8, &Slots, u32);

/// One row of the opcode table.
pub struct LaneOp {
    /// Opcode and types as PTX writes them.
    pub name: &'static str,
    /// Layout of the destination.
    pub dst: Slot,
    /// Layout of the sources.
    pub src: &'static [Slot],
    /// For any CPU.
    pub plain: LaneFn,
    /// For a CPU with AVX2 and FMA, where a fused multiply-add is one instruction.
    pub fast: LaneFn,
}

impl LaneOp {
    /// The version this CPU can run.
    pub fn run(&self) -> LaneFn {
        if has_fast() { self.fast } else { self.plain }
    }
}

/// Whether the CPU has what the `fast` versions need.
pub fn has_fast() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// A value one lane holds.
pub trait Lane: Copy {
    /// How registers of it lie.
    const SLOT: Slot;

    /// The value of `lane` in the register at `reg`.
    ///
    /// # Safety
    /// `reg` points to a whole register of layout `SLOT`, `lane` is below 32.
    unsafe fn get(reg: *const u8, lane: usize) -> Self;

    /// Sets the lanes in `mask` to `value(lane)`; the others keep what they hold.
    ///
    /// # Safety
    /// `reg` points to a whole register of layout `SLOT`.
    unsafe fn put(reg: *mut u8, mask: u32, value: impl Fn(usize) -> Self);
}

macro_rules! numeric_lane {
    ($($ty:ty, $slot:ty, $layout:ident, $from:expr, $to:expr;)*) => {$(
        impl Lane for $ty {
            const SLOT: Slot = Slot::$layout;

            #[inline(always)]
            unsafe fn get(reg: *const u8, lane: usize) -> Self {
                let from: fn($slot) -> $ty = $from;
                // SAFETY: the caller promises a register of 32 elements, aligned to 8 bytes.
                from(unsafe { reg.cast::<$slot>().add(lane).read() })
            }

            #[inline(always)]
            unsafe fn put(reg: *mut u8, mask: u32, value: impl Fn(usize) -> Self) {
                let to: fn($ty) -> $slot = $to;
                // Results are gathered before any is stored: the destination may be a source too.
                let mut out = [0 as $slot; LANES];
                for lane in 0..LANES {
                    out[lane] = to(value(lane));
                }
                let reg = reg.cast::<[$slot; LANES]>();
                if mask != u32::MAX {
                    // SAFETY: as above.
                    let kept = unsafe { reg.read() };
                    for lane in 0..LANES {
                        out[lane] = if mask & 1 << lane != 0 { out[lane] } else { kept[lane] };
                    }
                }
                // SAFETY: as above.
                unsafe { reg.write(out) };
            }
        }
    )*};
}

numeric_lane! {
    u8, u32, Word, |slot| slot as u8, |value| u32::from(value);
    u16, u32, Word, |slot| slot as u16, |value| u32::from(value);
    u32, u32, Word, |slot| slot, |value| value;
    i8, u32, Word, |slot| slot as i8, |value| value as i32 as u32;
    i16, u32, Word, |slot| slot as i16, |value| value as i32 as u32;
    i32, u32, Word, |slot| slot as i32, |value| value as u32;
    f32, u32, Word, f32::from_bits, f32::to_bits;
    u64, u64, Double, |slot| slot, |value| value;
    i64, u64, Double, |slot| slot as i64, |value| value as u64;
    f64, u64, Double, f64::from_bits, f64::to_bits;
}

impl Lane for bool {
    const SLOT: Slot = Slot::Mask;

    #[inline(always)]
    unsafe fn get(reg: *const u8, lane: usize) -> Self {
        // SAFETY: the caller promises a predicate.
        unsafe { reg.cast::<u32>().read() >> lane & 1 != 0 }
    }

    #[inline(always)]
    unsafe fn put(reg: *mut u8, mask: u32, value: impl Fn(usize) -> Self) {
        let mut bits = 0;
        for lane in 0..LANES {
            bits |= u32::from(value(lane)) << lane;
        }
        let reg = reg.cast::<u32>();
        // SAFETY: the caller promises a predicate.
        unsafe { reg.write(reg.read() & !mask | bits & mask) };
    }
}

/// Rows of the opcode table: `"opcode.types" (a: type, …) -> type { value }`.
macro_rules! lane_ops {
    ($($name:expr, ($($arg:ident: $ty:ty),+) -> $result:ty { $body:expr })*) => {
        &[$({
            #[inline(always)]
            fn lane($($arg: $ty),+) -> $result {
                $body
            }
            // SAFETY: the contract of `LaneFn`, which is also that of the two functions below.
            #[inline(always)]
            unsafe fn all(regs: *mut u8, slots: &$crate::exec::lane::Slots, mask: u32) {
                use $crate::exec::lane::Lane;
                let mut sources = slots.src.iter();
                $(
                    // SAFETY: the caller promises that every slot lies in the block.
                    let $arg = unsafe { regs.add(*sources.next().unwrap_or(&0) as usize) };
                )+
                // SAFETY: as above; layouts are those declared beside the function.
                unsafe {
                    <$result as Lane>::put(regs.add(slots.dst as usize), mask, |index| {
                        lane($(<$ty as Lane>::get($arg, index)),+)
                    });
                }
            }
            unsafe fn plain(regs: *mut u8, slots: &$crate::exec::lane::Slots, mask: u32) {
                // SAFETY: the caller's promise, passed on.
                unsafe { all(regs, slots, mask) }
            }
            #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
            unsafe fn fast(regs: *mut u8, slots: &$crate::exec::lane::Slots, mask: u32) {
                // SAFETY: the caller's promise, passed on.
                unsafe { all(regs, slots, mask) }
            }
            $crate::exec::lane::LaneOp {
                name: $name,
                dst: <$result as $crate::exec::lane::Lane>::SLOT,
                src: &[$(<$ty as $crate::exec::lane::Lane>::SLOT),+],
                plain,
                fast,
            }
        }),*]
    };
}
pub(crate) use lane_ops;
