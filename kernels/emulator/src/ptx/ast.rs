//! The tree of a PTX module.

use std::collections::BTreeMap;

/// A fundamental PTX type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// A one-bit predicate.
    Pred,
    /// Untyped bits of a width in bytes.
    Bits(u8),
    /// Unsigned integer of a width in bytes.
    Unsigned(u8),
    /// Signed integer of a width in bytes.
    Signed(u8),
    /// Floating point of a width in bytes (2 is binary16).
    Float(u8),
}

impl Type {
    /// The type a suffix such as `u32` names, without its dot.
    pub fn from_suffix(suffix: &str) -> Option<Self> {
        if suffix == "pred" {
            return Some(Self::Pred);
        }
        if !suffix.is_char_boundary(1) {
            return None;
        }
        let (letter, bits) = suffix.split_at(1.min(suffix.len()));
        let bytes = match bits {
            "8" => 1,
            "16" => 2,
            "32" => 4,
            "64" => 8,
            "128" => 16,
            _ => return None,
        };
        match letter {
            "b" => Some(Self::Bits(bytes)),
            "u" if bytes <= 8 => Some(Self::Unsigned(bytes)),
            "s" if bytes <= 8 => Some(Self::Signed(bytes)),
            "f" if (2..=8).contains(&bytes) => Some(Self::Float(bytes)),
            _ => None,
        }
    }

    /// Width in bytes; 0 for a predicate.
    pub fn bytes(self) -> usize {
        match self {
            Self::Pred => 0,
            Self::Bits(n) | Self::Unsigned(n) | Self::Signed(n) | Self::Float(n) => n as usize,
        }
    }
}

/// A memory space, as named by an instruction or a declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// No space named: the address itself says which.
    Generic,
    /// Device memory.
    Global,
    /// Read-only device memory of the module.
    Const,
    /// Memory of a block.
    Shared,
    /// Memory of a thread.
    Local,
    /// Arguments of the kernel.
    Param,
}

/// A declared variable.
#[derive(Debug, Clone)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Where it lives.
    pub space: Space,
    /// Alignment in bytes.
    pub align: usize,
    /// Size in bytes; 0 for `extern` arrays of open length.
    pub bytes: usize,
    /// The initial bytes; empty means zeros.
    pub initial: Vec<u8>,
    /// Line of the declaration.
    pub line: u32,
}

/// The index of a register within its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegId(pub u32);

/// What an instruction names.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand {
    /// A register.
    Reg(RegId),
    /// A special register such as `%tid.x`, with its percent sign.
    Special(String),
    /// An integer literal, as its two's complement bits.
    Int(i64),
    /// The bits of a binary32 literal.
    F32(u32),
    /// The bits of a binary64 literal (decimal literals too).
    F64(u64),
    /// A variable, label or function, plus a byte offset.
    Symbol(String, i64),
    /// `{a, b, …}`.
    Vector(Vec<Operand>),
    /// `[base + offset]`.
    Address(Box<Operand>, i64),
    /// `a|b`, two destinations.
    Pair(Box<Operand>, Box<Operand>),
    /// `!p`.
    Not(RegId),
    /// `_`, a destination nobody reads.
    Sink,
}

/// `@p` or `@!p`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guard {
    /// The predicate register.
    pub reg: RegId,
    /// Whether it must be false.
    pub negated: bool,
}

/// One instruction as written.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// Line of the CUDA source, if the text carries `.loc`.
    pub cuda_line: Option<u32>,
    /// The guard predicate.
    pub guard: Option<Guard>,
    /// The opcode with all its suffixes.
    pub opcode: String,
    /// What it names, destination first.
    pub operands: Vec<Operand>,
    /// The scope it stands in, for its labels.
    pub scope: usize,
}

/// The body of a kernel or a function.
#[derive(Debug, Default, Clone)]
pub struct Body {
    /// The type of every register.
    pub regs: Vec<Type>,
    /// Instructions in order.
    pub code: Vec<Instruction>,
    /// Shared and local variables declared inside.
    pub variables: Vec<Variable>,
    /// Label of a scope to the index of the instruction it stands before.
    pub labels: BTreeMap<(usize, String), usize>,
    /// `.branchtargets` lists by scope and label.
    pub tables: BTreeMap<(usize, String), Vec<String>>,
    /// The parent of each scope; scope 0 is the kernel's own.
    pub scopes: Vec<Option<usize>>,
}

impl Body {
    /// The instruction index of `label` as seen from `scope`.
    pub fn label(&self, scope: usize, label: &str) -> Option<usize> {
        self.seen_from(scope, label, &self.labels).copied()
    }

    /// The `.branchtargets` list named `label` as seen from `scope`.
    pub fn table(&self, scope: usize, label: &str) -> Option<&Vec<String>> {
        self.seen_from(scope, label, &self.tables)
    }

    fn seen_from<'a, T>(
        &self,
        scope: usize,
        label: &str,
        map: &'a BTreeMap<(usize, String), T>,
    ) -> Option<&'a T> {
        let mut at = Some(scope);
        while let Some(scope) = at {
            if let Some(found) = map.get(&(scope, label.to_string())) {
                return Some(found);
            }
            at = self.scopes.get(scope).copied().flatten();
        }
        None
    }
}

/// One parameter of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// Byte offset in the argument block.
    pub offset: usize,
    /// Size in bytes.
    pub bytes: usize,
}

/// A kernel.
#[derive(Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its parameters in order.
    pub params: Vec<Param>,
    /// `.maxntid` or `.reqntid` as the product of its dimensions.
    pub max_threads: Option<u32>,
    /// Whether the block must have exactly `max_threads` threads.
    pub exact_threads: bool,
    /// Its instructions.
    pub body: Body,
    /// Line of its name.
    pub line: u32,
}

/// A device function.
#[derive(Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// Names of what it returns.
    pub returns: Vec<String>,
    /// Names of its parameters.
    pub params: Vec<String>,
    /// Its instructions; a declaration has none.
    pub body: Option<Body>,
}

/// A module.
#[derive(Debug, Default)]
pub struct Module {
    /// `.version` as (major, minor).
    pub version: (u32, u32),
    /// Compute capability of `.target`, such as 86.
    pub target: u32,
    /// Variables outside any kernel.
    pub variables: Vec<Variable>,
    /// Kernels in order, calls of functions replaced by what the functions do.
    pub entries: Vec<Entry>,
}
