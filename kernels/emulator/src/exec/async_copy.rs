//! `cp.async`: performed as late as the rules allow, at the wait that covers it, so that a missing wait shows
//! as stale data.

use super::check::Touch;
use super::count::{Access, Mode};
use super::fault::Fault;
use super::lane::LANES;
use super::memory::{Address, BlockMemory, active};
use crate::ptx::ast::Space;

/// A copy instruction.
#[derive(Debug)]
pub(super) struct AsyncCopy {
    pub dst: Address,
    pub src: Address,
    /// Bytes written: 4, 8 or 16.
    pub bytes: u32,
    /// Offset of the register that says how many bytes are read, the rest being zeros.
    pub read_bytes: Option<u32>,
}

/// Copies a warp has begun and not yet waited for.
#[derive(Debug, Default)]
pub(super) struct Pending {
    copies: Vec<Begun>,
    /// Groups each lane has committed.
    committed: [u32; LANES],
}

/// One instruction's copies that have not landed.
#[derive(Debug, Clone, Copy)]
struct Begun {
    /// Lanes whose copies they are.
    mask: u32,
    group: [u32; LANES],
    dst: [u64; LANES],
    src: [u64; LANES],
    bytes: u32,
    read_bytes: [u32; LANES],
}

impl Pending {
    /// Forgets all; what was never waited for is never written.
    pub fn reset(&mut self) {
        self.copies.clear();
        self.committed = [0; LANES];
    }

    /// Checks the addresses and notes the copies.
    ///
    /// # Safety
    /// Registers lie in the frame.
    pub unsafe fn begin<M: Mode>(
        &mut self,
        copy: &AsyncCopy,
        memory: &mut BlockMemory<'_>,
        regs: *const u8,
        mask: u32,
        pc: u32,
    ) -> Result<(), Box<Fault>> {
        // SAFETY: the caller's promise.
        let (dst, src) = unsafe { (copy.dst.of_lanes(regs), copy.src.of_lanes(regs)) };
        memory.resolve::<M>(Space::Shared, &mut dst.clone(), mask, copy.bytes, Touch::WriteLater)?;
        let mut reading = mask;
        let mut lengths = [copy.bytes; LANES];
        if let Some(at) = copy.read_bytes {
            // SAFETY: the register is whole.
            lengths = unsafe { regs.add(at as usize).cast::<[u32; LANES]>().read() };
            for lane in 0..LANES {
                lengths[lane] = lengths[lane].min(copy.bytes);
                if lengths[lane] == 0 {
                    reading &= !(1 << lane);
                }
            }
        }
        if M::COUNT {
            memory.count(copy.src.space, Access::Load, &src, reading, copy.bytes, pc);
            memory.count(Space::Shared, Access::Store, &dst, mask, copy.bytes, pc);
        }
        let mut whole = 0;
        for lane in active(reading) {
            whole |= u32::from(lengths[lane] == copy.bytes) << lane;
        }
        if whole != 0 {
            memory.resolve::<M>(copy.src.space, &mut src.clone(), whole, copy.bytes, Touch::Read)?;
        }
        for lane in active(reading & !whole) {
            for byte in 0..u64::from(lengths[lane]) {
                let mut named = src.map(|address| address.wrapping_add(byte));
                memory.resolve::<M>(copy.src.space, &mut named, 1 << lane, 1, Touch::Read)?;
            }
        }
        let (group, bytes) = (self.committed, copy.bytes);
        self.copies.push(Begun { mask, group, dst, src, bytes, read_bytes: lengths });
        Ok(())
    }

    /// Closes a group.
    pub fn commit(&mut self, mask: u32) {
        for lane in active(mask) {
            self.committed[lane] += 1;
        }
    }

    /// Performs what must be complete when at most `allowed` groups are pending; `u32::MAX` means everything,
    /// committed or not.
    pub fn wait<M: Mode>(
        &mut self,
        allowed: u32,
        memory: &mut BlockMemory<'_>,
        mask: u32,
    ) -> Result<(), Box<Fault>> {
        for copy in &mut self.copies {
            let mut due = 0;
            for lane in active(mask & copy.mask) {
                let pending = u64::from(copy.group[lane]) + u64::from(allowed);
                let landed = allowed == u32::MAX || pending < u64::from(self.committed[lane]);
                due |= u32::from(landed) << lane;
            }
            if due == 0 {
                continue;
            }
            copy.mask &= !due;
            let mut to = copy.dst;
            memory.resolve::<M>(Space::Shared, &mut to, due, copy.bytes, Touch::Write)?;
            for lane in active(due) {
                let mut bytes = [0u8; 16];
                // SAFETY: the source was checked when the copy began, the destination just now; both are as long
                // as stated, and no length is above 16.
                unsafe {
                    let length = copy.read_bytes[lane] as usize;
                    std::ptr::copy_nonoverlapping(copy.src[lane] as *const u8, bytes.as_mut_ptr(), length);
                    std::ptr::copy_nonoverlapping(bytes.as_ptr(), to[lane] as *mut u8, copy.bytes as usize);
                }
            }
        }
        self.copies.retain(|copy| copy.mask != 0);
        Ok(())
    }
}
