//! Instructions that touch memory.

use super::Decoder;
use super::opcode::{slot_of, space_of};
use crate::exec::async_copy::AsyncCopy;
use crate::exec::atomic::{Atomic, Kind, What};
use crate::exec::lane::Slot;
use crate::exec::memory::{Transfer, load_fn, store_fn};
use crate::exec::program::Op;
use crate::ptx::PtxError;
use crate::ptx::ast::{Instruction, Operand, Space, Type};

/// Words between opcode and type that change no value here: caching, ordering and scope.
const HINTS: &[&str] = &[
    "nc", "volatile", "weak", "relaxed", "acquire", "release", "acq_rel", "cta", "cluster", "gpu", "sys",
    "ca", "cg", "cs", "lu", "cv", "wb", "wt", "noftz",
];

impl Decoder<'_> {
    pub(super) fn load(&mut self, words: &[&str], dst: &Operand, address: &Operand) -> Result<(), PtxError> {
        let shape = self.shape(words)?;
        let parts = self.parts(dst, shape.count)?;
        let slot = self.common_slot(&parts, shape.ty)?;
        let mut regs = [0; 8];
        for (reg, part) in regs.iter_mut().zip(&parts) {
            *reg = self.destination(part, slot)?;
        }
        let bytes = shape.ty.bytes();
        let run = load_fn(bytes, matches!(shape.ty, Type::Signed(_)), slot, shape.count)
            .ok_or_else(|| self.error(format!("a load of {:?} into {slot:?} registers", shape.ty)))?;
        let address = self.address(address, shape.space)?;
        self.push(Op::Load(Box::new(Transfer { address, bytes: (bytes * shape.count) as u32, run, regs })));
        Ok(())
    }

    pub(super) fn store(
        &mut self,
        words: &[&str],
        address: &Operand,
        source: &Operand,
    ) -> Result<(), PtxError> {
        let shape = self.shape(words)?;
        let address = self.address(address, shape.space)?;
        if matches!(address.space, Space::Const | Space::Param) {
            return Err(self.error(format!("a store to {:?} memory", address.space)));
        }
        let parts = self.parts(source, shape.count)?;
        let slot = self.common_slot(&parts, shape.ty)?;
        let mut regs = [0; 8];
        for (reg, part) in regs.iter_mut().zip(&parts) {
            *reg = self.source(part, slot, false)?;
        }
        let bytes = shape.ty.bytes();
        let run = store_fn(bytes, slot, shape.count)
            .ok_or_else(|| self.error(format!("a store of {:?} from {slot:?} registers", shape.ty)))?;
        self.push(Op::Store(Box::new(Transfer { address, bytes: (bytes * shape.count) as u32, run, regs })));
        Ok(())
    }

    fn shape(&self, words: &[&str]) -> Result<Shape, PtxError> {
        let mut shape = Shape { space: Space::Generic, count: 1, ty: Type::Pred };
        let Some((last, middle)) = words[1..].split_last() else {
            return Err(self.error(format!("`{}` without a type", words[0])));
        };
        for word in middle {
            match *word {
                "v2" => shape.count = 2,
                "v4" => shape.count = 4,
                "v8" => shape.count = 8,
                hint if HINTS.contains(&hint) || hint.starts_with("L1::") || hint.starts_with("L2::") => {}
                space => match Space::from_suffix(space) {
                    Some(space) => shape.space = space,
                    None => return Err(self.error(format!("`{}.{word}` is not implemented", words[0]))),
                },
            }
        }
        shape.ty = Type::from_suffix(last)
            .filter(|ty| (1..=8).contains(&ty.bytes()))
            .ok_or_else(|| self.error(format!("`{}` of type `{last}` is not implemented", words[0])))?;
        if shape.ty.bytes() * shape.count > 32 {
            return Err(self.error("an access of more than 32 bytes"));
        }
        Ok(shape)
    }

    fn parts(&self, operand: &Operand, count: usize) -> Result<Vec<Operand>, PtxError> {
        let parts = match operand {
            Operand::Vector(parts) => parts.clone(),
            single => vec![single.clone()],
        };
        if parts.len() != count {
            return Err(self.error(format!("{} registers for {count} elements", parts.len())));
        }
        Ok(parts)
    }

    /// The layout all registers of a transfer share; what is no register has the type's own.
    fn common_slot(&self, parts: &[Operand], ty: Type) -> Result<Slot, PtxError> {
        let mut found = None;
        for part in parts {
            if let Operand::Reg(reg) = part {
                let slot = self.frame.reg(*reg).1;
                if found.is_some_and(|other| other != slot) {
                    return Err(self.error("registers of different sizes in one vector"));
                }
                found = Some(slot);
            }
        }
        let own = if ty.bytes() == 8 { Slot::Double } else { Slot::Word };
        match found.unwrap_or(own) {
            Slot::Mask => Err(self.error("a predicate in memory")),
            slot => Ok(slot),
        }
    }

    pub(super) fn atomic(
        &mut self,
        ins: &Instruction,
        words: &[&str],
        args: &[Operand],
    ) -> Result<(), PtxError> {
        let returns = words[0] == "atom";
        let Some((last, middle)) = words[1..].split_last() else { return self.unknown(ins) };
        let mut what = None;
        for word in middle {
            let found = match *word {
                "add" => What::Add,
                "min" => What::Min,
                "max" => What::Max,
                "and" => What::And,
                "or" => What::Or,
                "xor" => What::Xor,
                "exch" => What::Exchange,
                "cas" => What::CompareSwap,
                "inc" => What::Increment,
                "dec" => What::Decrement,
                hint if HINTS.contains(&hint) || Space::from_suffix(hint).is_some() => continue,
                _ => return self.unknown(ins),
            };
            what = Some(found);
        }
        let (Some(what), Some(slot), Some(ty)) = (what, slot_of(last), Type::from_suffix(last)) else {
            return self.unknown(ins);
        };
        let bytes = ty.bytes() as u32;
        let (dst, address, sources) = match args {
            [dst, address, sources @ ..] if returns => (Some(dst), address, sources),
            [address, sources @ ..] if !returns => (None, address, sources),
            _ => return self.unknown(ins),
        };
        let wanted = if what == What::CompareSwap { 2 } else { 1 };
        if sources.len() != wanted || !matches!(bytes, 4 | 8) {
            return self.unknown(ins);
        }
        let mut src = [0; 2];
        for index in 0..2 {
            src[index] = self.source(&sources[index.min(wanted - 1)], slot, false)?;
        }
        let dst = dst.map(|dst| self.destination(dst, slot)).transpose()?;
        let kind = if matches!(ty, Type::Signed(_)) { Kind::Signed } else { Kind::Unsigned };
        let address = self.address(address, space_of(words))?;
        self.push(Op::Atomic(Box::new(Atomic { address, what, kind, bytes, dst, src })));
        Ok(())
    }

    pub(super) fn async_copy(
        &mut self,
        ins: &Instruction,
        words: &[&str],
        args: &[Operand],
    ) -> Result<(), PtxError> {
        match (words, args) {
            ([_, "async", "commit_group"], []) => self.push(Op::AsyncCommit),
            ([_, "async", "wait_all"], []) => self.push(Op::AsyncWait(u32::MAX)),
            ([_, "async", "wait_group"], [Operand::Int(allowed)]) => {
                self.push(Op::AsyncWait((*allowed).clamp(0, i64::from(u32::MAX) - 1) as u32));
            }
            ([_, "async", cache @ ("ca" | "cg"), "shared" | "shared::cta", "global", hints @ ..], _)
                if hints.iter().all(|hint| hint.starts_with("L2::") && hint.ends_with('B')) =>
            {
                let (dst, src, bytes, read_bytes) = match args {
                    [dst, src, Operand::Int(bytes)] => (dst, src, *bytes, None),
                    [dst, src, Operand::Int(bytes), read] => (dst, src, *bytes, Some(read)),
                    _ => return self.unknown(ins),
                };
                if !(bytes == 16 || (*cache == "ca" && matches!(bytes, 4 | 8))) {
                    return Err(self.error(format!("cp.async.{cache} of {bytes} bytes")));
                }
                let read_bytes = read_bytes.map(|read| self.source(read, Slot::Word, false)).transpose()?;
                let dst = self.address(dst, Space::Shared)?;
                let src = self.address(src, Space::Global)?;
                self.push(Op::AsyncCopy(Box::new(AsyncCopy { dst, src, bytes: bytes as u32, read_bytes })));
            }
            _ => return self.unknown(ins),
        }
        Ok(())
    }
}

/// What a load or store says of itself.
struct Shape {
    space: Space,
    count: usize,
    ty: Type,
}
