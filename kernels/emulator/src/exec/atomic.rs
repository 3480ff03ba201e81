//! `atom` and `red` on integers. Floating-point atomics add in the order of arrival, which no two runs share:
//! the decoder refuses them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::check::Touch;
use super::count::{Access, Mode};
use super::fault::Fault;
use super::lane::LANES;
use super::memory::{Address, BlockMemory, active};

/// An atomic instruction.
#[derive(Debug)]
pub(super) struct Atomic {
    pub address: Address,
    pub what: What,
    pub kind: Kind,
    /// 4 or 8.
    pub bytes: u32,
    /// Where the old value goes; `None` for `red`.
    pub dst: Option<u32>,
    /// The operand, and for `cas` the new value.
    pub src: [u32; 2],
}

/// The function applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareSwap,
    Increment,
    Decrement,
}

/// How the operand is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Unsigned,
    Signed,
}

impl Atomic {
    /// Applies it, lanes ascending.
    ///
    /// # Safety
    /// Registers lie in the frame; device addresses are the kernel's word.
    pub unsafe fn run<M: Mode>(
        &self,
        memory: &mut BlockMemory<'_>,
        regs: *mut u8,
        mask: u32,
        pc: u32,
    ) -> Result<(), Box<Fault>> {
        // SAFETY: the caller's promise.
        let mut at = unsafe { self.address.of_lanes(regs) };
        if M::COUNT {
            memory.count(self.address.space, Access::Atomic, &at, mask, self.bytes, pc);
        }
        memory.resolve::<M>(self.address.space, &mut at, mask, self.bytes, Touch::Atomic)?;
        for lane in active(mask) {
            // SAFETY: registers are whole, the address was bounded by `resolve` and is aligned.
            unsafe {
                if self.bytes == 4 {
                    self.one_word(at[lane], regs, lane);
                } else {
                    self.one_double(at[lane], regs, lane);
                }
            }
        }
        Ok(())
    }

    unsafe fn one_word(&self, address: u64, regs: *mut u8, lane: usize) {
        let read = |at: u32| {
            // SAFETY: the register is whole.
            unsafe { regs.add(at as usize).cast::<[u32; LANES]>().read()[lane] }
        };
        let (a, b) = (read(self.src[0]), read(self.src[1]));
        // SAFETY: the address is aligned to 4 and within what the kernel may touch.
        let cell = unsafe { AtomicU32::from_ptr(address as *mut u32) };
        let step = |old: u32| match (self.what, self.kind) {
            (What::Min, Kind::Signed) => (old as i32).min(a as i32) as u32,
            (What::Max, Kind::Signed) => (old as i32).max(a as i32) as u32,
            _ => self.unsigned(u64::from(old), u64::from(a), u64::from(b)) as u32,
        };
        let old = cell.update(Ordering::AcqRel, Ordering::Acquire, step);
        if let Some(dst) = self.dst {
            // SAFETY: the register is whole.
            unsafe { regs.add(dst as usize).cast::<u32>().add(lane).write(old) };
        }
    }

    unsafe fn one_double(&self, address: u64, regs: *mut u8, lane: usize) {
        let read = |at: u32| {
            // SAFETY: the register is whole.
            unsafe { regs.add(at as usize).cast::<[u64; LANES]>().read()[lane] }
        };
        let (a, b) = (read(self.src[0]), read(self.src[1]));
        // SAFETY: the address is aligned to 8 and within what the kernel may touch.
        let cell = unsafe { AtomicU64::from_ptr(address as *mut u64) };
        let step = |old: u64| match (self.what, self.kind) {
            (What::Min, Kind::Signed) => (old as i64).min(a as i64) as u64,
            (What::Max, Kind::Signed) => (old as i64).max(a as i64) as u64,
            _ => self.unsigned(old, a, b),
        };
        let old = cell.update(Ordering::AcqRel, Ordering::Acquire, step);
        if let Some(dst) = self.dst {
            // SAFETY: the register is whole.
            unsafe { regs.add(dst as usize).cast::<u64>().add(lane).write(old) };
        }
    }

    fn unsigned(&self, old: u64, a: u64, b: u64) -> u64 {
        match self.what {
            What::Add => old.wrapping_add(a),
            What::Min => old.min(a),
            What::Max => old.max(a),
            What::And => old & a,
            What::Or => old | a,
            What::Xor => old ^ a,
            What::Exchange => a,
            What::CompareSwap if old == a => b,
            What::CompareSwap => old,
            What::Increment if old >= a => 0,
            What::Increment => old + 1,
            What::Decrement if old == 0 || old > a => a,
            What::Decrement => old - 1,
        }
    }
}
