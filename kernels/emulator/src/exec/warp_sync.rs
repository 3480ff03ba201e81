//! Instructions that exchange values between the lanes of a warp, and the barrier's operands.

use super::lane::LANES;
use super::memory::active;

/// `bar.sync` and `bar.red`.
#[derive(Debug)]
pub(super) struct Barrier {
    /// Offset of the barrier's number.
    pub id: u32,
    /// Offset of the count of threads; all of the block without it.
    pub threads: Option<u32>,
    pub reduce: Option<Reduce>,
}

/// The reduction of `bar.red`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reduce {
    pub what: Fold,
    pub dst: u32,
    /// Offset of the predicate each thread contributes.
    pub src: u32,
}

/// What is made of the predicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fold {
    Count,
    All,
    Any,
}

impl Reduce {
    /// Gives `active` lanes the answer, when `set` of `arrived` threads contributed true.
    ///
    /// # Safety
    /// Registers lie in the frame.
    pub unsafe fn deliver(&self, regs: *mut u8, mask: u32, set: u32, arrived: u32) {
        match self.what {
            // SAFETY: the caller's promise.
            Fold::Count => unsafe { write_words(regs, self.dst, mask, |_| set) },
            Fold::All => {
                // SAFETY: the caller's promise.
                unsafe { write_mask(regs, self.dst, mask, if set == arrived { !0 } else { 0 }) }
            }
            // SAFETY: the caller's promise.
            Fold::Any => unsafe { write_mask(regs, self.dst, mask, if set > 0 { !0 } else { 0 }) },
        }
    }
}

/// `shfl.sync`.
#[derive(Debug)]
pub(super) struct Shuffle {
    pub mode: ShuffleMode,
    pub dst: u32,
    /// Offset of the predicate that says whether the source lane was in range.
    pub in_range: Option<u32>,
    pub value: u32,
    pub lane: u32,
    pub clamp: u32,
    pub members: u32,
}

/// Which lane a lane reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

impl Shuffle {
    /// Exchanges.
    ///
    /// # Safety
    /// Registers lie in the frame.
    pub unsafe fn run(&self, regs: *mut u8, mask: u32) {
        // SAFETY: the caller's promise.
        let (value, by, clamp) =
            unsafe { (words(regs, self.value), words(regs, self.lane), words(regs, self.clamp)) };
        let mut out = [0; LANES];
        let mut ranged = 0;
        for lane in 0..LANES {
            let (from, inside) = self.mode.source(lane as i32, by[lane], clamp[lane]);
            out[lane] = value[from];
            ranged |= u32::from(inside) << lane;
        }
        // SAFETY: the caller's promise.
        unsafe {
            write_words(regs, self.dst, mask, |lane| out[lane]);
            if let Some(at) = self.in_range {
                write_mask(regs, at, mask, ranged);
            }
        }
    }
}

impl ShuffleMode {
    /// The lane read by `lane`, and whether it was in range (out of range a lane reads itself). `clamp` holds
    /// the last lane of a segment in bits 0 to 4 and the segment mask in bits 8 to 12.
    fn source(self, lane: i32, by: u32, clamp: u32) -> (usize, bool) {
        let by = (by & 31) as i32;
        let segment = (clamp >> 8 & 31) as i32;
        let last = lane & segment | (clamp & 31) as i32 & !segment;
        let from = match self {
            Self::Up => lane - by,
            Self::Down => lane + by,
            Self::Butterfly => lane ^ by,
            Self::Index => lane & segment | by & !segment,
        };
        let inside = if self == Self::Up { from >= last } else { from <= last };
        if inside { ((from & 31) as usize, true) } else { (lane as usize, false) }
    }
}

/// `vote.sync`.
#[derive(Debug)]
pub(super) struct Vote {
    pub what: Ballot,
    pub dst: u32,
    pub src: u32,
    pub members: u32,
}

/// What a vote answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ballot {
    All,
    Any,
    Uniform,
    Bits,
}

impl Vote {
    /// Votes among the lanes of `mask`.
    ///
    /// # Safety
    /// Registers lie in the frame.
    pub unsafe fn run(&self, regs: *mut u8, mask: u32) {
        // SAFETY: the caller's promise.
        let set = unsafe { read_mask(regs, self.src) } & mask;
        let yes = match self.what {
            Ballot::All => set == mask,
            Ballot::Any => set != 0,
            Ballot::Uniform => set == mask || set == 0,
            Ballot::Bits => {
                // SAFETY: the caller's promise.
                unsafe { write_words(regs, self.dst, mask, |_| set) };
                return;
            }
        };
        // SAFETY: the caller's promise.
        unsafe { write_mask(regs, self.dst, mask, if yes { !0 } else { 0 }) };
    }
}

/// `redux.sync` and `match.sync`.
#[derive(Debug)]
pub(super) struct Collect {
    pub what: Gathering,
    pub dst: u32,
    pub src: u32,
    /// The source is a register of 64 bits.
    pub wide: bool,
    pub members: u32,
}

/// What is made of the members' values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gathering {
    Add,
    Min,
    Max,
    SignedMin,
    SignedMax,
    And,
    Or,
    Xor,
    /// For each lane, the members that hold its value.
    Same,
    /// All members if all hold one value, else none; and the predicate at this offset says which.
    AllSame(Option<u32>),
}

impl Collect {
    /// Collects from the lanes of `mask`.
    ///
    /// # Safety
    /// Registers lie in the frame.
    pub unsafe fn run(&self, regs: *mut u8, mask: u32) {
        let values: [u64; LANES] = if self.wide {
            // SAFETY: the caller's promise.
            unsafe { regs.add(self.src as usize).cast::<[u64; LANES]>().read() }
        } else {
            // SAFETY: the caller's promise.
            unsafe { words(regs, self.src) }.map(u64::from)
        };
        let members = || active(mask).map(|lane| values[lane] as u32);
        let signed = || members().map(|value| value as i32);
        let one = match self.what {
            Gathering::Add => members().fold(0, u32::wrapping_add),
            Gathering::Min => members().min().unwrap_or(0),
            Gathering::Max => members().max().unwrap_or(0),
            Gathering::SignedMin => signed().min().unwrap_or(0) as u32,
            Gathering::SignedMax => signed().max().unwrap_or(0) as u32,
            Gathering::And => members().fold(u32::MAX, |all, value| all & value),
            Gathering::Or => members().fold(0, |all, value| all | value),
            Gathering::Xor => members().fold(0, |all, value| all ^ value),
            Gathering::Same => {
                let like = |lane: usize| {
                    active(mask)
                        .filter(|&other| values[other] == values[lane])
                        .fold(0, |all, at| all | 1 << at)
                };
                // SAFETY: the caller's promise.
                unsafe { write_words(regs, self.dst, mask, like) };
                return;
            }
            Gathering::AllSame(predicate) => {
                let first = values[mask.trailing_zeros() as usize];
                let same = active(mask).all(|lane| values[lane] == first);
                if let Some(at) = predicate {
                    // SAFETY: the caller's promise.
                    unsafe { write_mask(regs, at, mask, if same { !0 } else { 0 }) };
                }
                if same { mask } else { 0 }
            }
        };
        // SAFETY: the caller's promise.
        unsafe { write_words(regs, self.dst, mask, |_| one) };
    }
}

/// The lanes of a 32-bit register.
///
/// # Safety
/// The register lies in the frame.
pub(super) unsafe fn words(regs: *const u8, at: u32) -> [u32; LANES] {
    // SAFETY: the caller's promise.
    unsafe { regs.add(at as usize).cast::<[u32; LANES]>().read() }
}

/// Sets lanes of a 32-bit register.
///
/// # Safety
/// The register lies in the frame.
pub(super) unsafe fn write_words(regs: *mut u8, at: u32, mask: u32, value: impl Fn(usize) -> u32) {
    for lane in active(mask) {
        // SAFETY: the caller's promise.
        unsafe { regs.add(at as usize).cast::<u32>().add(lane).write(value(lane)) };
    }
}

/// A predicate.
///
/// # Safety
/// The register lies in the frame.
pub(super) unsafe fn read_mask(regs: *const u8, at: u32) -> u32 {
    // SAFETY: the caller's promise.
    unsafe { regs.add(at as usize).cast::<u32>().read() }
}

/// Sets lanes of a predicate.
///
/// # Safety
/// The register lies in the frame.
pub(super) unsafe fn write_mask(regs: *mut u8, at: u32, mask: u32, bits: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        let reg = regs.add(at as usize).cast::<u32>();
        reg.write(reg.read() & !mask | bits & mask);
    }
}

#[cfg(test)]
mod tests {
    use super::ShuffleMode;

    #[test]
    fn sources_as_the_manual_lists_them() {
        // Full width: clamp 31 for all but `up`, which clamps at 0.
        assert_eq!(ShuffleMode::Down.source(0, 16, 31), (16, true));
        assert_eq!(ShuffleMode::Down.source(16, 16, 31), (16, false));
        assert_eq!(ShuffleMode::Up.source(0, 1, 0), (0, false));
        assert_eq!(ShuffleMode::Up.source(5, 1, 0), (4, true));
        assert_eq!(ShuffleMode::Butterfly.source(5, 3, 31), (6, true));
        assert_eq!(ShuffleMode::Index.source(5, 33, 31), (1, true));
        // Segments of 8: segment mask 24, clamp 7 within.
        let clamp = (24 << 8) | 7;
        assert_eq!(ShuffleMode::Index.source(13, 2, clamp), (10, true));
        assert_eq!(ShuffleMode::Down.source(14, 2, clamp), (14, false));
        assert_eq!(ShuffleMode::Down.source(13, 2, clamp), (15, true));
        assert_eq!(ShuffleMode::Up.source(8, 1, 24 << 8), (8, false));
        assert_eq!(ShuffleMode::Butterfly.source(15, 8, clamp), (7, true));
    }
}
