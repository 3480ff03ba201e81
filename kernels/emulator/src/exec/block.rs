//! One block: its warps in turn, from barrier to barrier.

use super::check::Allocations;
use super::count::{Counters, Mode};
use super::fault::{Fault, FaultKind};
use super::lane::{LANES, Slot};
use super::launch::Launch;
use super::memory::{Aligned, BlockMemory};
use super::program::{Program, Special};
use super::shadow::Shadow;
use super::warp::{State, Warp};

/// What a worker keeps from block to block.
pub(super) struct Worker<'a> {
    program: &'a Program,
    launch: &'a Launch<'a>,
    frames: Aligned,
    frame_bytes: usize,
    template: Aligned,
    shared: Aligned,
    local: Aligned,
    params: Aligned,
    warps: Vec<Warp>,
    shadow: Shadow,
    counters: Counters,
}

/// Uninitialised shared and local memory reads as not-a-numbers, so that relying on it shows.
const POISON: u8 = 0xff;

impl<'a> Worker<'a> {
    pub fn new(program: &'a Program, launch: &'a Launch<'a>) -> Self {
        let threads = launch.threads();
        let warps = threads.div_ceil(LANES as u32);
        let frame_bytes = program.frame_bytes.next_multiple_of(256).max(256);
        let frames = Aligned::zeroed(frame_bytes * warps as usize);
        let template = Aligned::zeroed(frame_bytes);
        let params = Aligned::zeroed(launch.params.len());
        // SAFETY: the buffer is as long as the arguments and nobody else has it yet.
        unsafe {
            std::ptr::copy_nonoverlapping(launch.params.as_ptr(), params.as_ptr(), launch.params.len())
        };
        let mut worker = Self {
            program,
            launch,
            frame_bytes,
            template,
            shared: Aligned::zeroed(program.shared_bytes + launch.dynamic_shared),
            local: Aligned::zeroed(program.local_bytes * LANES * warps as usize),
            params,
            warps: Vec::new(),
            shadow: Shadow::default(),
            counters: Counters::default(),
            frames,
        };
        for index in 0..warps {
            let left = threads - index * LANES as u32;
            let born = if left >= 32 { u32::MAX } else { (1 << left) - 1 };
            // SAFETY: there is one frame for each warp.
            let regs = unsafe { worker.frames.as_ptr().add(frame_bytes * index as usize) };
            worker.warps.push(Warp {
                index,
                regs,
                born,
                splits: Vec::new(),
                pending: Default::default(),
                jumps: 0,
            });
        }
        for &(at, slot, bits) in &program.constants {
            worker.splat(at, slot, bits);
        }
        worker
    }

    /// Writes one value into all lanes of a register of the template.
    fn splat(&self, at: u32, slot: Slot, bits: u64) {
        // SAFETY: the decoder laid out every register within a frame, and the template is one.
        unsafe {
            let reg = self.template.as_ptr().add(at as usize);
            match slot {
                Slot::Word => reg.cast::<[u32; LANES]>().write([bits as u32; LANES]),
                Slot::Double => reg.cast::<[u64; LANES]>().write([bits; LANES]),
                Slot::Mask => reg.cast::<u32>().write(bits as u32),
            }
        }
    }

    /// Runs the block of that number.
    ///
    /// # Safety
    /// Device addresses the kernel forms must be its own to touch.
    pub unsafe fn run<M: Mode>(
        &mut self,
        block: [u32; 3],
        allocations: &Allocations,
    ) -> Result<(), Box<Fault>> {
        self.prepare::<M>(block);
        let program = self.program;
        let mut memory = BlockMemory {
            shared: self.shared.as_ptr(),
            shared_bytes: self.shared.bytes() as u64,
            params: self.params.as_ptr(),
            param_bytes: self.params.bytes() as u64,
            local: self.local.as_ptr(),
            local_bytes: program.local_bytes as u64,
            warp: 0,
            allocations,
            last_hit: 0,
            shadow: std::mem::take(&mut self.shadow),
            counters: std::mem::take(&mut self.counters),
            jump_limit: self.launch.jump_limit,
            sm: self.launch.sm,
        };
        let outcome = loop {
            let mut run_all = || {
                for warp in &mut self.warps {
                    memory.warp = warp.index;
                    let before = warp.index as usize * LANES * program.local_bytes;
                    // SAFETY: there is local memory for every warp.
                    memory.local = unsafe { self.local.as_ptr().add(before) };
                    // SAFETY: the caller's promise; the frame is the program's own.
                    unsafe { warp.run::<M>(program, &mut memory)? };
                }
                // SAFETY: as above.
                unsafe { release::<M>(&mut self.warps) }
            };
            match run_all() {
                Ok(true) => memory.shadow.barrier(),
                Ok(false) => break Ok(()),
                Err(fault) => break Err(fault),
            }
        };
        self.shadow = memory.shadow;
        self.counters = memory.counters;
        if M::COUNT {
            self.counters.end_block();
        }
        outcome
    }

    /// Adds what was counted to the launch's sum.
    pub fn tell<M: Mode>(&mut self) {
        if let Some(tally) = self.launch.count.filter(|_| M::COUNT) {
            tally.add(&std::mem::take(&mut self.counters));
        }
    }

    fn prepare<M: Mode>(&mut self, block: [u32; 3]) {
        let axis = |xyz: [u32; 3], axis: u8| u64::from(xyz[axis as usize]);
        for &(special, at) in &self.program.specials {
            let value = match special {
                Special::Ctaid(index) => axis(block, index),
                Special::Nctaid(index) => axis(self.launch.grid, index),
                Special::Ntid(index) => axis(self.launch.block, index),
                Special::WarpCount => self.warps.len() as u64,
                Special::DynamicShared => self.launch.dynamic_shared as u64,
                Special::TotalShared => self.shared.bytes() as u64,
                Special::ParamBase => self.params.as_ptr() as u64,
                _ => continue,
            };
            self.splat(at, special.slot(), value);
        }
        for warp in &mut self.warps {
            // SAFETY: both are frames of that size and do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(self.template.as_ptr(), warp.regs, self.frame_bytes) };
            for &(special, at) in &self.program.specials {
                let Some(value) = lane_value(special, warp.index, self.launch.block) else { continue };
                // SAFETY: the register lies in the frame.
                unsafe { warp.regs.add(at as usize).cast::<[u32; LANES]>().write(value) };
            }
            warp.start();
        }
        // SAFETY: the buffers are as long as they say.
        unsafe {
            self.shared.as_ptr().write_bytes(POISON, self.shared.bytes());
            self.local.as_ptr().write_bytes(POISON, self.local.bytes());
        }
        if M::CHECK {
            self.shadow.reset(self.shared.bytes());
        }
    }
}

/// Special registers that differ between warps or lanes.
fn lane_value(special: Special, warp: u32, block: [u32; 3]) -> Option<[u32; LANES]> {
    let per_lane = |value: &dyn Fn(u32) -> u32| Some(std::array::from_fn(|lane| value(lane as u32)));
    match special {
        Special::Tid(axis) => per_lane(&|lane| thread_of(warp, lane, block)[axis as usize]),
        Special::LaneId => per_lane(&|lane| lane),
        Special::WarpId => per_lane(&|_| warp),
        Special::LaneMaskEq => per_lane(&|lane| 1 << lane),
        Special::LaneMaskLt => per_lane(&|lane| (1 << lane) - 1),
        Special::LaneMaskLe => per_lane(&|lane| u32::MAX >> (31 - lane)),
        Special::LaneMaskGt => per_lane(&|lane| !(u32::MAX >> (31 - lane))),
        Special::LaneMaskGe => per_lane(&|lane| u32::MAX << lane),
        _ => None,
    }
}

/// `%tid` of a lane.
pub(super) fn thread_of(warp: u32, lane: u32, block: [u32; 3]) -> [u32; 3] {
    let thread = warp * LANES as u32 + lane;
    let [x, y, _] = block;
    [thread % x, thread / x % y, thread / x / y]
}

/// Lets go every barrier that is complete. Whether there was one; without any, all threads have ended.
///
/// # Safety
/// Registers named by the arrivals lie in their frames.
unsafe fn release<M: Mode>(warps: &mut [Warp]) -> Result<bool, Box<Fault>> {
    let live: u32 = warps.iter().map(|warp| warp.live().count_ones()).sum();
    if live == 0 {
        return Ok(false);
    }
    let mut released = false;
    for id in 0..16 {
        let (mut arrived, mut set, mut expected) = (0, 0, None);
        for (_, mask, arrival) in arrivals(warps).filter(|(_, _, arrival)| arrival.id == id) {
            arrived += mask.count_ones();
            set += arrival.set.count_ones();
            expected = expected.or(arrival.threads);
        }
        if arrived == 0 || arrived < expected.unwrap_or(live) {
            continue;
        }
        if M::CHECK && expected.is_none() {
            let born: u32 = warps.iter().map(|warp| warp.born.count_ones()).sum();
            if born != live {
                let what = format!(
                    "{live} of the block's {born} threads wait here, the others have left the kernel"
                );
                return Err(stuck(warps, what));
            }
        }
        released = true;
        for warp in warps.iter_mut() {
            for split in &mut warp.splits {
                let State::Barrier(arrival) = split.state else { continue };
                if arrival.id == id {
                    split.state = State::Ready;
                    if let Some(reduce) = arrival.reduce {
                        // SAFETY: the caller's promise.
                        unsafe { reduce.deliver(warp.regs, split.mask, set, arrived) };
                    }
                }
            }
        }
    }
    if released {
        return Ok(true);
    }
    Err(stuck(warps, format!("none of the barriers the block's {live} threads wait at can complete")))
}

fn arrivals(warps: &[Warp]) -> impl Iterator<Item = (&Warp, u32, super::warp::Arrival)> {
    warps.iter().flat_map(|warp| {
        warp.splits.iter().filter_map(move |split| match split.state {
            State::Barrier(arrival) => Some((warp, split.mask, arrival)),
            _ => None,
        })
    })
}

#[cold]
fn stuck(warps: &[Warp], what: String) -> Box<Fault> {
    let kind = FaultKind::DivergentSynchronisation;
    match arrivals(warps).next() {
        Some((warp, mask, arrival)) => warp.fault(arrival.pc, kind, Some(mask.trailing_zeros()), what),
        None => Fault::new(kind, None, what),
    }
}
