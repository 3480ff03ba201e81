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

#[derive(Debug, Clone, Copy)]
struct Begun {
    lane: u32,
    group: u32,
    dst: u64,
    src: u64,
    bytes: u32,
    read_bytes: u32,
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
        // A shortened read must still start where a whole one could.
        for lane in active(reading) {
            let one = 1u32 << lane;
            if lengths[lane] == copy.bytes {
                memory.resolve::<M>(copy.src.space, &mut src.clone(), one, copy.bytes, Touch::Read)?;
            } else {
                for byte in 0..u64::from(lengths[lane]) {
                    let mut named = src.map(|address| address.wrapping_add(byte));
                    memory.resolve::<M>(copy.src.space, &mut named, one, 1, Touch::Read)?;
                }
            }
        }
        for lane in active(mask) {
            self.copies.push(Begun {
                lane: lane as u32,
                group: self.committed[lane],
                dst: dst[lane],
                src: src[lane],
                bytes: copy.bytes,
                read_bytes: lengths[lane],
            });
        }
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
        let committed = self.committed;
        let (due, rest): (Vec<_>, Vec<_>) = self.copies.drain(..).partition(|copy| {
            let closed = committed[copy.lane as usize];
            mask >> copy.lane & 1 != 0
                && (allowed == u32::MAX || u64::from(copy.group) + u64::from(allowed) < u64::from(closed))
        });
        self.copies = rest;
        for copy in due {
            let mut to = [copy.dst; LANES];
            let one = 1u32 << copy.lane;
            memory.resolve::<M>(Space::Shared, &mut to, one, copy.bytes, Touch::Write)?;
            let mut bytes = [0u8; 16];
            let length = copy.read_bytes as usize;
            // SAFETY: the source was checked when the copy began, the destination just now; both are as long
            // as stated, and `length` is at most 16.
            unsafe {
                std::ptr::copy_nonoverlapping(copy.src as *const u8, bytes.as_mut_ptr(), length);
                let to = to[copy.lane as usize] as *mut u8;
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, copy.bytes as usize);
            }
        }
        Ok(())
    }
}
