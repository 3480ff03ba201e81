//! The decoded form of a kernel.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::async_copy::AsyncCopy;
use super::atomic::Atomic;
use super::count::Class;
use super::lane::{LaneFn, Slot, Slots};
use super::memory::{Aligned, Transfer};
use super::tensor::{LoadMatrix, Mma};
use super::warp_sync::{Barrier, Collect, Shuffle, Vote};
use crate::ptx::ast::Param;

/// A module ready to run: kernels and variables, the latter at their final addresses.
#[derive(Debug)]
pub struct Loaded {
    /// Kernels by name.
    pub programs: BTreeMap<String, Arc<Program>>,
    /// PTX version as 10 * major + minor.
    pub ptx_version: u32,
    /// Compute capability the text was made for, such as 86.
    pub target: u32,
    /// Address and size in bytes of each `.global` and `.const` variable.
    pub variables: BTreeMap<String, (u64, usize)>,
    /// The memory they lie in.
    pub(super) storage: Arc<Aligned>,
}

impl Program {
    /// Lines of PTX and, where the text tells, of CUDA of an instruction.
    pub fn lines_of(&self, pc: u32) -> (u32, Option<u32>) {
        self.lines.get(pc as usize).copied().unwrap_or((0, None))
    }
}

impl Loaded {
    /// The range of addresses the module's variables occupy.
    pub fn storage_range(&self) -> (u64, u64) {
        let start = self.storage.as_ptr() as u64;
        (start, start + self.storage.bytes() as u64)
    }
}

/// A kernel.
#[derive(Debug)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// Its parameters.
    pub params: Vec<Param>,
    /// Size of the argument block in bytes.
    pub param_bytes: usize,
    /// Statically declared shared memory in bytes; dynamic shared memory begins there.
    pub shared_bytes: usize,
    /// Local memory of a thread in bytes.
    pub local_bytes: usize,
    /// Upper bound of threads in a block, where declared.
    pub max_threads: Option<u32>,
    /// Whether the bound must be met exactly.
    pub exact_threads: bool,
    /// 32-bit registers declared (64-bit ones count twice).
    pub registers: u32,
    /// PTX version as 10 * major + minor.
    pub ptx_version: u32,
    pub(super) code: Vec<Ins>,
    /// PTX line and CUDA line of each instruction.
    pub(super) lines: Vec<(u32, Option<u32>)>,
    /// What each instruction counts as; `None` for what only helps the one before or after it.
    pub(super) classes: Vec<Option<Class>>,
    pub(super) frame_bytes: usize,
    pub(super) constants: Vec<(u32, Slot, u64)>,
    pub(super) specials: Vec<(Special, u32)>,
    pub(super) source: Arc<str>,
    /// Keeps the addresses in `constants` valid.
    pub(super) _storage: Arc<Aligned>,
}

/// One instruction.
#[derive(Debug)]
pub(super) struct Ins {
    /// Offset of the guard predicate, or [`NO_GUARD`].
    pub guard: u32,
    /// All ones where the guard must be false.
    pub flip: u32,
    pub op: Op,
}

/// The instruction has no guard.
pub(super) const NO_GUARD: u32 = u32::MAX;

/// What an instruction does.
#[derive(Debug)]
pub(super) enum Op {
    /// Lanes to lanes.
    Lanes(LaneFn, Slots),
    /// To another instruction.
    Branch(u32),
    /// To the instruction an index register selects.
    BranchTable {
        index: u32,
        targets: Box<[u32]>,
    },
    Exit,
    Trap,
    Load(Box<Transfer>),
    Store(Box<Transfer>),
    Atomic(Box<Atomic>),
    AsyncCopy(Box<AsyncCopy>),
    AsyncCommit,
    /// Until at most so many groups are pending; `u32::MAX` also takes what was not committed.
    AsyncWait(u32),
    Fence,
    Barrier(Box<Barrier>),
    /// `bar.warp.sync`, with the offset of the member mask.
    WarpBarrier(u32),
    Shuffle(Box<Shuffle>),
    Vote(Box<Vote>),
    Collect(Box<Collect>),
    LoadMatrix(Box<LoadMatrix>),
    Mma(Box<Mma>),
    ActiveMask(u32),
}

/// A read-only register the device fills in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    LaneId,
    WarpId,
    WarpCount,
    LaneMaskEq,
    LaneMaskLt,
    LaneMaskLe,
    LaneMaskGt,
    LaneMaskGe,
    DynamicShared,
    TotalShared,
    /// Address of the argument block; PTX reaches it through `cvta.param`.
    ParamBase,
}

impl Special {
    /// The register of that name, with its percent sign.
    pub fn from_name(name: &str) -> Option<Self> {
        if let Some((base, axis)) = name.rsplit_once('.') {
            let axis = match axis {
                "x" => 0,
                "y" => 1,
                "z" => 2,
                _ => return None,
            };
            return match base {
                "%tid" => Some(Self::Tid(axis)),
                "%ntid" => Some(Self::Ntid(axis)),
                "%ctaid" => Some(Self::Ctaid(axis)),
                "%nctaid" => Some(Self::Nctaid(axis)),
                _ => None,
            };
        }
        match name {
            "%laneid" => Some(Self::LaneId),
            "%warpid" => Some(Self::WarpId),
            "%nwarpid" => Some(Self::WarpCount),
            "%lanemask_eq" => Some(Self::LaneMaskEq),
            "%lanemask_lt" => Some(Self::LaneMaskLt),
            "%lanemask_le" => Some(Self::LaneMaskLe),
            "%lanemask_gt" => Some(Self::LaneMaskGt),
            "%lanemask_ge" => Some(Self::LaneMaskGe),
            "%dynamic_smem_size" => Some(Self::DynamicShared),
            "%total_smem_size" => Some(Self::TotalShared),
            _ => None,
        }
    }

    pub fn slot(self) -> Slot {
        if self == Self::ParamBase { Slot::Double } else { Slot::Word }
    }
}
