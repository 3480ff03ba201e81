//! What a kernel did wrong, and where.

use std::fmt;

/// The kind of a fault; each answers to one driver error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// An access outside what the thread may touch.
    IllegalAddress,
    /// An address that is not a multiple of the access's size.
    MisalignedAddress,
    /// `trap`, or an instruction whose operands make no sense.
    IllegalInstruction,
    /// Threads that wait for partners who never come, or come by another way.
    DivergentSynchronisation,
    /// Two warps on the same shared bytes without a barrier between them, at least one writing.
    SharedRace,
    /// Memory that nobody has written since it was allocated, or since the block began.
    UninitialisedRead,
    /// A warp that does not come to an end.
    Timeout,
}

/// A fault within a warp, before its place in the grid is known.
#[derive(Debug, Clone)]
pub struct Fault {
    /// What kind.
    pub kind: FaultKind,
    /// What was found, in words.
    pub what: String,
    /// The first lane concerned.
    pub lane: Option<u32>,
    /// Index of the instruction.
    pub pc: Option<u32>,
    /// Index of the warp in its block.
    pub warp: u32,
}

impl Fault {
    /// A fault whose place is filled in further up.
    pub fn new(kind: FaultKind, lane: Option<u32>, what: impl Into<String>) -> Box<Self> {
        Box::new(Self { kind, what: what.into(), lane, pc: None, warp: 0 })
    }
}

/// A fault with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What kind.
    pub kind: FaultKind,
    /// What was found, in words.
    pub what: String,
    /// The kernel.
    pub kernel: String,
    /// `%ctaid`.
    pub block: [u32; 3],
    /// `%tid`, where one thread is concerned.
    pub thread: Option<[u32; 3]>,
    /// Warp in its block and lane in its warp.
    pub warp_lane: (u32, Option<u32>),
    /// Line of the PTX text, from 1; 0 if no single instruction is to blame.
    pub ptx_line: u32,
    /// That line.
    pub ptx_text: String,
    /// Line of the CUDA source, where `.loc` tells.
    pub cuda_line: Option<u32>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.block;
        write!(f, "{:?} in kernel `{}`: {}\n    block ({x}, {y}, {z})", self.kind, self.kernel, self.what)?;
        if let Some([x, y, z]) = self.thread {
            write!(f, ", thread ({x}, {y}, {z})")?;
        }
        write!(f, ", warp {}", self.warp_lane.0)?;
        if let Some(lane) = self.warp_lane.1 {
            write!(f, ", lane {lane}")?;
        }
        if self.ptx_line != 0 {
            write!(f, "\n    PTX line {}: {}", self.ptx_line, self.ptx_text)?;
        }
        match self.cuda_line {
            Some(line) => write!(f, "\n    CUDA source line {line}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Report {}
