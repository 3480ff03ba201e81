//! The interpreter of one warp.
//!
//! Lanes that go together form a *split*: a place in the code and a mask. The split furthest behind runs;
//! where it reaches another's place the two become one. So lanes part at a branch and meet again at the first
//! instruction they share. A split at a warp-wide instruction waits there until all members have come; a
//! split at a barrier waits for the block.

use std::sync::atomic::{Ordering, fence};

use super::async_copy::Pending;
use super::check::Touch;
use super::count::{Access, Mode};
use super::fault::{Fault, FaultKind};
use super::memory::{BlockMemory, Transfer, active};
use super::program::{Ins, NO_GUARD, Op, Program};
use super::warp_sync::{Barrier, Reduce, read_mask, words, write_words};

/// A warp between two barriers.
#[derive(Debug)]
pub(super) struct Warp {
    pub index: u32,
    /// The frame of registers.
    pub regs: *mut u8,
    /// Lanes that exist.
    pub born: u32,
    pub splits: Vec<Split>,
    pub pending: Pending,
    /// Jumps back since the block began.
    pub jumps: u64,
}

/// Lanes that go together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Split {
    pub pc: u32,
    pub mask: u32,
    pub state: State,
}

/// What a split waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    /// The other members of a warp-wide instruction.
    Partners,
    /// The block, at a barrier: `pc` is already past it.
    Barrier(Arrival),
}

/// A split's part in a barrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Arrival {
    pub id: u32,
    /// Threads expected, or all.
    pub threads: Option<u32>,
    pub reduce: Option<Reduce>,
    /// Lanes that contribute true to the reduction.
    pub set: u32,
    pub pc: u32,
}

/// What became of a split after an instruction.
enum Next {
    /// It goes on, here.
    At(u32),
    /// It was put back or has ended.
    Gone,
}

impl Warp {
    /// Puts all born lanes at the first instruction.
    pub fn start(&mut self) {
        self.splits.clear();
        self.splits.push(Split { pc: 0, mask: self.born, state: State::Ready });
        self.pending.reset();
        self.jumps = 0;
    }

    /// Lanes that have not ended.
    pub fn live(&self) -> u32 {
        self.splits.iter().fold(0, |mask, split| mask | split.mask)
    }

    /// Runs until every split has ended or waits at a barrier.
    ///
    /// # Safety
    /// The frame holds what `program` names; device addresses are the kernel's word.
    pub unsafe fn run<M: Mode>(
        &mut self,
        program: &Program,
        memory: &mut BlockMemory<'_>,
    ) -> Result<(), Box<Fault>> {
        while let Some(split) = self.take_furthest_behind() {
            // SAFETY: the caller's promise.
            unsafe { self.advance::<M>(split, program, memory)? };
        }
        match self.splits.iter().find(|split| split.state == State::Partners) {
            None => Ok(()),
            Some(split) => Err(self.fault(
                split.pc,
                FaultKind::DivergentSynchronisation,
                Some(split.mask.trailing_zeros()),
                format!("lanes {:#010x} wait for members of the warp who never come here", split.mask),
            )),
        }
    }

    /// Removes the ready split with the lowest place, joined with all that stand there.
    fn take_furthest_behind(&mut self) -> Option<Split> {
        let ready = self.splits.iter().filter(|split| split.state == State::Ready);
        let pc = ready.map(|split| split.pc).min()?;
        let mut mask = 0;
        self.splits.retain(|split| {
            let here = split.pc == pc && matches!(split.state, State::Ready | State::Partners);
            mask |= if here { split.mask } else { 0 };
            !here
        });
        Some(Split { pc, mask, state: State::Ready })
    }

    /// The lowest place where a running split may meet another.
    fn next_meeting(&self) -> u32 {
        let others = self.splits.iter().filter(|split| !matches!(split.state, State::Barrier(_)));
        others.map(|split| split.pc).min().unwrap_or(u32::MAX)
    }

    unsafe fn advance<M: Mode>(
        &mut self,
        mut split: Split,
        program: &Program,
        memory: &mut BlockMemory<'_>,
    ) -> Result<(), Box<Fault>> {
        let regs = self.regs;
        let mut meeting = self.next_meeting();
        loop {
            let Ins { guard, flip, op } = &program.code[split.pc as usize];
            let mut now = split.mask;
            if *guard != NO_GUARD {
                // SAFETY: the guard lies in the frame.
                now &= unsafe { read_mask(regs, *guard) } ^ flip;
            }
            if M::COUNT
                && let Some(class) = program.classes[split.pc as usize]
            {
                memory.counters.instruction(class);
            }
            match op {
                Op::Lanes(run, slots) => {
                    if now != 0 {
                        // SAFETY: the decoder laid out every slot within the frame, and `LaneOp::run` chose a
                        // function this CPU has.
                        unsafe { run(regs, slots, now) };
                    }
                    split.pc += 1;
                }
                Op::Branch(target) => {
                    if *target <= split.pc && now != 0 {
                        self.jump(split, memory.jump_limit)?;
                    }
                    if now == split.mask {
                        split.pc = *target;
                    } else if now == 0 {
                        split.pc += 1;
                    } else {
                        self.part(&mut split, now, *target);
                        meeting = self.next_meeting();
                    }
                }
                _ if now == 0 => split.pc += 1,
                Op::Load(transfer) | Op::Store(transfer) => {
                    let touch = if matches!(op, Op::Load(_)) { Touch::Read } else { Touch::Write };
                    // SAFETY: the caller's promise.
                    let moved = unsafe { transfer.run_on::<M>(memory, regs, now, touch, split.pc) };
                    moved.map_err(|fault| self.at(split.pc, fault))?;
                    split.pc += 1;
                }
                other => {
                    // SAFETY: the caller's promise.
                    let next = unsafe { self.rare::<M>(&mut split, now, other, memory) };
                    match next.map_err(|fault| self.at(split.pc, fault))? {
                        Next::At(pc) => split.pc = pc,
                        Next::Gone => return Ok(()),
                    }
                    meeting = self.next_meeting();
                }
            }
            if split.pc >= meeting {
                self.splits.push(split);
                return Ok(());
            }
        }
    }

    /// Notes a jump back.
    #[inline(always)]
    fn jump(&mut self, split: Split, limit: u64) -> Result<(), Box<Fault>> {
        self.jumps += 1;
        if self.jumps <= limit {
            return Ok(());
        }
        let what =
            format!("the warp has jumped back {limit} times in this launch and is taken to run for ever");
        Err(self.fault(split.pc, FaultKind::Timeout, Some(split.mask.trailing_zeros()), what))
    }

    /// Sends the `going` lanes of `split` to `target`, the others on; keeps the part that is further behind.
    fn part(&mut self, split: &mut Split, going: u32, target: u32) {
        let staying = Split { pc: split.pc + 1, mask: split.mask & !going, state: State::Ready };
        let gone = Split { pc: target, mask: going, state: State::Ready };
        let (first, second) = if gone.pc < staying.pc { (gone, staying) } else { (staying, gone) };
        *split = first;
        self.splits.push(second);
    }

    unsafe fn rare<M: Mode>(
        &mut self,
        split: &mut Split,
        now: u32,
        op: &Op,
        memory: &mut BlockMemory<'_>,
    ) -> Result<Next, Box<Fault>> {
        let regs = self.regs;
        let next = Next::At(split.pc + 1);
        match op {
            Op::Lanes(..) | Op::Branch(_) | Op::Load(_) | Op::Store(_) => {}
            Op::Exit => {
                split.mask &= !now;
                if split.mask == 0 {
                    return Ok(Next::Gone);
                }
            }
            Op::Trap => {
                let lane = now.trailing_zeros();
                return Err(Fault::new(
                    FaultKind::IllegalInstruction,
                    Some(lane),
                    "the kernel executed a trap",
                ));
            }
            Op::BranchTable { index, targets } => {
                self.jump(*split, memory.jump_limit)?;
                // SAFETY: the caller's promise.
                let index = unsafe { words(regs, *index) };
                for lane in active(now) {
                    let Some(&pc) = targets.get(index[lane] as usize) else {
                        let what = format!("branch index {} of a table of {}", index[lane], targets.len());
                        return Err(Fault::new(FaultKind::IllegalInstruction, Some(lane as u32), what));
                    };
                    self.splits.push(Split { pc, mask: 1 << lane, state: State::Ready });
                }
                if split.mask != now {
                    let mask = split.mask & !now;
                    self.splits.push(Split { pc: split.pc + 1, mask, state: State::Ready });
                }
                return Ok(Next::Gone);
            }
            // SAFETY: the caller's promise.
            Op::Atomic(atomic) => unsafe { atomic.run::<M>(memory, regs, now, split.pc)? },
            // SAFETY: the caller's promise.
            Op::AsyncCopy(copy) => unsafe { self.pending.begin::<M>(copy, memory, regs, now, split.pc)? },
            Op::AsyncCommit => self.pending.commit(now),
            Op::AsyncWait(allowed) => self.pending.wait::<M>(*allowed, memory, now)?,
            Op::Fence => fence(Ordering::SeqCst),
            // SAFETY: the caller's promise.
            Op::ActiveMask(dst) => unsafe { write_words(regs, *dst, now, |_| now) },
            Op::Barrier(barrier) => {
                // SAFETY: the caller's promise.
                unsafe { self.arrive::<M>(split, now, barrier)? };
                return Ok(Next::Gone);
            }
            Op::WarpBarrier(members) => {
                // SAFETY: the caller's promise.
                if !unsafe { self.gather(split, now, *members)? } {
                    return Ok(Next::Gone);
                }
            }
            Op::Shuffle(shuffle) => {
                // SAFETY: the caller's promise.
                unsafe {
                    if !self.gather(split, now, shuffle.members)? {
                        return Ok(Next::Gone);
                    }
                    shuffle.run(regs, now);
                }
            }
            Op::Vote(vote) => {
                // SAFETY: the caller's promise.
                unsafe {
                    if !self.gather(split, now, vote.members)? {
                        return Ok(Next::Gone);
                    }
                    vote.run(regs, now);
                }
            }
            Op::Collect(collect) => {
                // SAFETY: the caller's promise.
                unsafe {
                    if !self.gather(split, now, collect.members)? {
                        return Ok(Next::Gone);
                    }
                    collect.run(regs, now);
                }
            }
            Op::LoadMatrix(load) => {
                // SAFETY: the caller's promise.
                unsafe {
                    if !self.gather(split, now, load.members)? {
                        return Ok(Next::Gone);
                    }
                    load.run::<M>(memory, regs, split.pc)?;
                }
            }
            Op::Mma(mma) => {
                // SAFETY: the caller's promise.
                unsafe {
                    if !self.gather(split, now, mma.members)? {
                        return Ok(Next::Gone);
                    }
                    mma.run(regs, memory.sm);
                }
            }
        }
        Ok(next)
    }

    /// Whether all members of a warp-wide instruction are here. If not, those who are wait.
    unsafe fn gather(&mut self, split: &Split, now: u32, members: u32) -> Result<bool, Box<Fault>> {
        // SAFETY: the caller's promise.
        let members = unsafe { words(self.regs, members) };
        let first = now.trailing_zeros();
        let mask = members[first as usize];
        for lane in active(now) {
            if members[lane] != mask || mask >> lane & 1 == 0 {
                let what = format!(
                    "member mask {:#010x} where lane {first} has {mask:#010x}, or a mask without the lane itself",
                    members[lane]
                );
                return Err(Fault::new(FaultKind::DivergentSynchronisation, Some(lane as u32), what));
            }
        }
        let live = self.live() | split.mask;
        if mask & live & !now == 0 {
            return Ok(true);
        }
        self.splits.push(Split { pc: split.pc, mask: now, state: State::Partners });
        if split.mask != now {
            self.splits.push(Split { pc: split.pc + 1, mask: split.mask & !now, state: State::Ready });
        }
        Ok(false)
    }

    unsafe fn arrive<M: Mode>(
        &mut self,
        split: &Split,
        now: u32,
        barrier: &Barrier,
    ) -> Result<(), Box<Fault>> {
        let first = now.trailing_zeros();
        if M::CHECK && now != self.born {
            let what = format!(
                "only lanes {now:#010x} of {:#010x} reach this barrier together: \
                 the others have left the kernel or took another way",
                self.born
            );
            return Err(Fault::new(FaultKind::DivergentSynchronisation, Some(first), what));
        }
        // SAFETY: the caller's promise.
        let (id, threads, set) = unsafe {
            let id = words(self.regs, barrier.id)[first as usize];
            let threads = barrier.threads.map(|at| words(self.regs, at)[first as usize]);
            (id, threads, barrier.reduce.map_or(0, |reduce| read_mask(self.regs, reduce.src) & now))
        };
        if id > 15 {
            let what = format!("barrier {id}; a block has 16");
            return Err(Fault::new(FaultKind::IllegalInstruction, Some(first), what));
        }
        let arrival = Arrival { id, threads, reduce: barrier.reduce, set, pc: split.pc };
        self.splits.push(Split { pc: split.pc + 1, mask: now, state: State::Barrier(arrival) });
        if split.mask != now {
            self.splits.push(Split { pc: split.pc + 1, mask: split.mask & !now, state: State::Ready });
        }
        Ok(())
    }

    /// Fills in where a fault happened.
    #[cold]
    fn at(&self, pc: u32, mut fault: Box<Fault>) -> Box<Fault> {
        fault.pc = fault.pc.or(Some(pc));
        fault.warp = self.index;
        fault
    }

    #[cold]
    pub fn fault(&self, pc: u32, kind: FaultKind, lane: Option<u32>, what: String) -> Box<Fault> {
        self.at(pc, Fault::new(kind, lane, what))
    }
}

impl Transfer {
    #[inline(always)]
    unsafe fn run_on<M: Mode>(
        &self,
        memory: &mut BlockMemory<'_>,
        regs: *mut u8,
        now: u32,
        touch: Touch,
        pc: u32,
    ) -> Result<(), Box<Fault>> {
        // SAFETY: the decoder laid out base and registers within the frame; what is past `resolve` is the
        // kernel's word, as on a device.
        unsafe {
            let mut at = self.address.of_lanes(regs);
            if M::COUNT {
                let access = if touch == Touch::Read { Access::Load } else { Access::Store };
                memory.count(self.address.space, access, &at, now, self.bytes, pc);
            }
            memory.resolve::<M>(self.address.space, &mut at, now, self.bytes, touch)?;
            (self.run)(&at, now, regs, &self.regs);
        }
        Ok(())
    }
}
