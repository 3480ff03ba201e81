//! What counted runs count: instructions by class, sectors of device memory, wavefronts of shared memory.
//!
//! An instruction is one of PTX, issued by one warp, whether or not its guard lets a lane through. What a device's
//! assembler makes of it may be more or fewer; addresses, and so the traffic, are the same.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use super::lane::LANES;
use super::memory::active;

/// Whether a run is checked and whether it is counted; what it is neither of costs it nothing.
pub(super) trait Mode {
    const CHECK: bool;
    const COUNT: bool;
}

/// One of the four modes.
pub(super) struct Run<const CHECK: bool, const COUNT: bool>;

impl<const CHECK: bool, const COUNT: bool> Mode for Run<CHECK, COUNT> {
    const CHECK: bool = CHECK;
    const COUNT: bool = COUNT;
}

macro_rules! classes {
    ($($(#[doc = $doc:literal])* $variant:ident $name:literal;)*) => {
        /// The kind of work an instruction is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Class {
            $($(#[doc = $doc])* $variant,)*
        }

        impl Class {
            /// All, in the order of their counters.
            pub const ALL: &'static [(Class, &'static str)] = &[$((Class::$variant, $name)),*];
        }
    };
}

classes! {
    /// `fma.rn.f32`.
    Ffma "ffma";
    /// Other arithmetic in binary32.
    Float "float";
    /// Arithmetic in binary64.
    Double "double";
    /// Arithmetic in binary16 and bfloat16.
    Half "half";
    /// Products of tiles on tensor cores, and loads of their operands.
    Tensor "tensor";
    /// Integers, bits, comparisons, selections.
    Integer "integer";
    /// Conversions.
    Convert "convert";
    /// Moves between registers, which an assembler mostly removes.
    Move "move";
    /// Loads from device memory.
    GlobalLoad "global_load";
    /// Stores to device memory.
    GlobalStore "global_store";
    /// Loads from shared memory.
    SharedLoad "shared_load";
    /// Stores to shared memory.
    SharedStore "shared_store";
    /// Loads from and stores to a thread's local memory.
    Local "local";
    /// Loads of parameters and constants.
    Constant "constant";
    /// Atomics.
    Atomic "atomic";
    /// Copies from device to shared memory, and waits for them.
    AsyncCopy "async_copy";
    /// Shuffles, votes, matches.
    Warp "warp";
    /// Barriers and fences.
    Barrier "barrier";
    /// Branches and ends.
    Control "control";
}

impl Class {
    /// The class of an opcode.
    pub fn of(opcode: &str) -> Self {
        let words: Vec<&str> = opcode.split('.').collect();
        let has = |word: &str| words[1..].contains(&word);
        let space = |global, shared| {
            if has("shared") || has("shared::cta") {
                shared
            } else if has("local") {
                Self::Local
            } else if has("param") || has("const") {
                Self::Constant
            } else {
                global
            }
        };
        match words[0] {
            "ld" | "ldu" => space(Self::GlobalLoad, Self::SharedLoad),
            "st" => space(Self::GlobalStore, Self::SharedStore),
            "atom" | "red" => Self::Atomic,
            "cp" => Self::AsyncCopy,
            "bar" | "barrier" | "membar" | "fence" => Self::Barrier,
            "shfl" | "vote" | "match" | "redux" | "activemask" => Self::Warp,
            "bra" | "brx" | "ret" | "exit" | "trap" => Self::Control,
            "mma" | "ldmatrix" => Self::Tensor,
            "mov" => Self::Move,
            "cvt" | "cvta" => Self::Convert,
            "setp" | "selp" | "slct" => Self::Integer,
            "fma" if has("f32") => Self::Ffma,
            _ if has("f32") => Self::Float,
            _ if has("f64") => Self::Double,
            _ if ["f16", "f16x2", "bf16", "bf16x2"].into_iter().any(has) => Self::Half,
            _ => Self::Integer,
        }
    }
}

/// Accesses to device memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Device {
    /// Instructions of a warp that touched it.
    pub requests: u64,
    /// Bytes its lanes asked for.
    pub bytes: u64,
    /// 32-byte sectors, counted once per instruction.
    pub sectors: u64,
    /// 32-byte sectors, counted once per block: what a first-level cache that forgets nothing would let through.
    pub block_sectors: u64,
}

/// Accesses to shared memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shared {
    /// Instructions of a warp that touched it.
    pub requests: u64,
    /// Passes over the 32 banks.
    pub wavefronts: u64,
    /// Passes without bank conflicts: one for each 128 bytes that a warp's lanes ask for.
    pub ideal: u64,
}

/// What a launch did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Instructions of warps, in the order of [`Class::ALL`].
    pub instructions: [u64; Class::ALL.len()],
    /// Loads from device memory, asynchronous copies included.
    pub load: Device,
    /// Stores to device memory.
    pub store: Device,
    /// Atomics on device memory.
    pub atomic: Device,
    /// Loads from shared memory.
    pub shared_load: Shared,
    /// Stores to shared memory.
    pub shared_store: Shared,
    /// Bytes of local memory that lanes loaded and stored.
    pub local_bytes: u64,
    /// Instructions with bank conflicts, by index: passes, and passes without conflicts.
    pub conflicts: BTreeMap<u32, (u64, u64)>,
    seen: [HashSet<u64>; 3],
}

/// How an instruction touches memory, as far as counters care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// It loads.
    Load,
    /// It stores.
    Store,
    /// It does both in one.
    Atomic,
}

impl Counters {
    /// One instruction.
    #[inline(always)]
    pub(super) fn instruction(&mut self, class: Class) {
        self.instructions[class as usize] += 1;
    }

    /// An access to device memory of `bytes` a lane.
    pub(super) fn device(&mut self, access: Access, at: &[u64; LANES], mask: u32, bytes: u32) {
        let (counter, seen) = match access {
            Access::Load => (&mut self.load, &mut self.seen[0]),
            Access::Store => (&mut self.store, &mut self.seen[1]),
            Access::Atomic => (&mut self.atomic, &mut self.seen[2]),
        };
        counter.requests += 1;
        counter.bytes += u64::from(bytes * mask.count_ones());
        // An access is aligned to its own size, of 32 bytes at most, so that a lane stays within one sector.
        let (mut sectors, mut count) = ([0; LANES], 0);
        for lane in active(mask) {
            sectors[count] = at[lane] / 32;
            count += 1;
        }
        for sector in distinct(&mut sectors[..count]) {
            counter.sectors += 1;
            counter.block_sectors += u64::from(seen.insert(*sector));
        }
    }

    /// An access to shared memory of `bytes` a lane, by the instruction of index `pc`.
    pub(super) fn shared(&mut self, access: Access, at: &[u64; LANES], mask: u32, bytes: u32, pc: u32) {
        let (passes, ideal) = wavefronts(at, mask, bytes);
        let counter = if access == Access::Load { &mut self.shared_load } else { &mut self.shared_store };
        counter.requests += 1;
        counter.wavefronts += passes;
        counter.ideal += ideal;
        if passes > ideal {
            let (all, least) = self.conflicts.entry(pc).or_default();
            *all += passes;
            *least += ideal;
        }
    }

    /// A block has ended: what its cache held is gone.
    pub(super) fn end_block(&mut self) {
        self.seen.iter_mut().for_each(HashSet::clear);
    }

    /// Passes beyond the ideal.
    pub fn conflict_wavefronts(&self) -> u64 {
        self.conflicts.values().map(|(all, least)| all - least).sum()
    }

    fn add(&mut self, other: &Self) {
        for (mine, theirs) in self.instructions.iter_mut().zip(other.instructions) {
            *mine += theirs;
        }
        for (mine, theirs) in [
            (&mut self.load, &other.load),
            (&mut self.store, &other.store),
            (&mut self.atomic, &other.atomic),
        ] {
            mine.requests += theirs.requests;
            mine.bytes += theirs.bytes;
            mine.sectors += theirs.sectors;
            mine.block_sectors += theirs.block_sectors;
        }
        for (mine, theirs) in
            [(&mut self.shared_load, &other.shared_load), (&mut self.shared_store, &other.shared_store)]
        {
            mine.requests += theirs.requests;
            mine.wavefronts += theirs.wavefronts;
            mine.ideal += theirs.ideal;
        }
        self.local_bytes += other.local_bytes;
        for (pc, (all, least)) in &other.conflicts {
            let mine = self.conflicts.entry(*pc).or_default();
            mine.0 += all;
            mine.1 += least;
        }
    }

    /// One line of JSON. `place` turns an instruction's index into its lines of PTX and CUDA.
    pub fn json(
        &self,
        kernel: &str,
        grid: [u32; 3],
        block: [u32; 3],
        place: impl Fn(u32) -> (u32, Option<u32>),
    ) -> String {
        let mut out = format!("{{\"kernel\":\"{kernel}\",\"grid\":{grid:?},\"block\":{block:?}");
        let mut put = |text: String| {
            let _ = out.write_str(&text);
        };
        put(",\"instructions\":{".to_owned());
        for (index, (class, name)) in Class::ALL.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            put(format!("{comma}\"{name}\":{}", self.instructions[*class as usize]));
        }
        put("}".to_owned());
        for (name, counter) in [("load", &self.load), ("store", &self.store), ("atomic", &self.atomic)] {
            put(format!(
                ",\"{name}\":{{\"requests\":{},\"bytes\":{},\"sectors\":{},\"block_sectors\":{}}}",
                counter.requests, counter.bytes, counter.sectors, counter.block_sectors
            ));
        }
        for (name, counter) in [("shared_load", &self.shared_load), ("shared_store", &self.shared_store)] {
            put(format!(
                ",\"{name}\":{{\"requests\":{},\"wavefronts\":{},\"ideal\":{}}}",
                counter.requests, counter.wavefronts, counter.ideal
            ));
        }
        put(format!(",\"local_bytes\":{},\"conflicts\":[", self.local_bytes));
        for (index, (pc, (all, least))) in self.conflicts.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let (ptx_line, cuda_line) = place(*pc);
            let cuda_line = cuda_line.map_or("null".to_owned(), |line| line.to_string());
            put(format!(
                "{comma}{{\"ptx_line\":{ptx_line},\"cuda_line\":{cuda_line},\"wavefronts\":{all},\"ideal\":{least}}}"
            ));
        }
        put("]}".to_owned());
        out
    }
}

/// The sum over a launch's workers.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Counters>);

impl Tally {
    pub(super) fn add(&self, counters: &Counters) {
        // A sum that a panicking thread left behind is one nobody will read.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).add(counters);
    }

    /// What was counted.
    pub fn counters(self) -> Counters {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Each value once, ascending.
fn distinct(values: &mut [u64]) -> &[u64] {
    if !values.is_sorted() {
        values.sort_unstable();
    }
    let mut count = 0;
    for index in 0..values.len() {
        if count == 0 || values[count - 1] != values[index] {
            values[count] = values[index];
            count += 1;
        }
    }
    &values[..count]
}

/// Passes over the banks, and what they would be without conflicts. Up to four bytes a lane a warp is served at once;
/// with 8 bytes half a warp, with 16 a quarter. Lanes that name the same word share it.
fn wavefronts(at: &[u64; LANES], mask: u32, bytes: u32) -> (u64, u64) {
    let served = match bytes {
        0..=4 => LANES,
        5..=8 => LANES / 2,
        9..=16 => LANES / 4,
        _ => LANES / 8,
    };
    let (mut passes, mut ideal) = (0, 0);
    for first in (0..LANES).step_by(served) {
        // Served together, lanes name 32 words at most.
        let (mut words, mut count) = ([0; LANES], 0);
        for lane in (first..first + served).filter(|lane| mask >> lane & 1 != 0) {
            for word in at[lane] / 4..=(at[lane] + u64::from(bytes) - 1) / 4 {
                words[count] = word;
                count += 1;
            }
        }
        if count == 0 {
            continue;
        }
        let mut banks = [0u64; 32];
        for word in distinct(&mut words[..count]) {
            banks[(*word % 32) as usize] += 1;
        }
        passes += banks.into_iter().max().unwrap_or(0);
        ideal += 1;
    }
    (passes, ideal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(address: impl Fn(u64) -> u64) -> [u64; LANES] {
        std::array::from_fn(|lane| address(lane as u64))
    }

    #[test]
    fn wavefronts_of_known_patterns() {
        assert_eq!(wavefronts(&each(|lane| 4 * lane), u32::MAX, 4), (1, 1));
        assert_eq!(wavefronts(&each(|_| 64), u32::MAX, 4), (1, 1));
        assert_eq!(wavefronts(&each(|lane| 128 * lane), u32::MAX, 4), (32, 1));
        assert_eq!(wavefronts(&each(|lane| 8 * lane), u32::MAX, 4), (2, 1));
        assert_eq!(wavefronts(&each(|lane| 8 * lane), u32::MAX, 8), (2, 2));
        assert_eq!(wavefronts(&each(|lane| 16 * lane), u32::MAX, 16), (4, 4));
        assert_eq!(wavefronts(&each(|lane| 32 * lane), u32::MAX, 16), (8, 4));
        // A row of 132 bytes: the pad that makes a transposed store free.
        assert_eq!(wavefronts(&each(|lane| 132 * lane), u32::MAX, 4), (1, 1));
        assert_eq!(wavefronts(&each(|lane| 128 * lane), 0x11, 4), (2, 1));
        // Two bytes a lane: neighbours share a word.
        assert_eq!(wavefronts(&each(|lane| 2 * lane), u32::MAX, 2), (1, 1));
    }

    #[test]
    fn sectors_of_known_patterns() {
        let mut counters = Counters::default();
        counters.device(Access::Load, &each(|lane| 4 * lane), u32::MAX, 4);
        assert_eq!((counters.load.sectors, counters.load.bytes), (4, 128));
        counters.device(Access::Load, &each(|lane| 4 + 4 * lane), u32::MAX, 4);
        assert_eq!((counters.load.sectors, counters.load.block_sectors), (9, 5));
        counters.end_block();
        counters.device(Access::Load, &each(|lane| 32 * lane), u32::MAX, 4);
        assert_eq!((counters.load.sectors, counters.load.block_sectors), (41, 37));
        counters.device(Access::Store, &each(|_| 0), 0b101, 4);
        assert_eq!(counters.store, Device { requests: 1, bytes: 8, sectors: 1, block_sectors: 1 });
    }

    #[test]
    fn classes_of_opcodes() {
        for (opcode, class) in [
            ("fma.rn.f32", Class::Ffma),
            ("mul.rn.f32", Class::Float),
            ("fma.rn.f64", Class::Double),
            ("add.s64", Class::Integer),
            ("setp.lt.f32", Class::Integer),
            ("ld.global.nc.v4.f32", Class::GlobalLoad),
            ("ld.shared.f32", Class::SharedLoad),
            ("st.shared.v4.f32", Class::SharedStore),
            ("ld.param.u64", Class::Constant),
            ("cvt.rn.f32.s32", Class::Convert),
            ("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32", Class::Tensor),
            ("fma.rn.bf16x2", Class::Half),
        ] {
            assert_eq!(Class::of(opcode), class, "{opcode}");
        }
    }
}
