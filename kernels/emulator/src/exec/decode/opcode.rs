//! An opcode's words to operations: control, `mov`, `setp`, `cvt`, and all that stands in the table as it is.

use super::Decoder;
use crate::exec::alu;
use crate::exec::lane::Slot;
use crate::exec::program::{Op, Special};
use crate::ptx::PtxError;
use crate::ptx::ast::{Instruction, Operand, Space, Type};

impl Decoder<'_> {
    pub(super) fn instruction(&mut self, ins: &Instruction) -> Result<(), PtxError> {
        let words: Vec<&str> = ins.opcode.split('.').collect();
        let args = &ins.operands[..];
        if let Some(why) = refused(&words) {
            return Err(self.error(format!("`{}` is refused: {why}", ins.opcode)));
        }
        match (words[0], args) {
            ("bra", [Operand::Symbol(label, 0)]) => {
                let target = self.target(ins, label)?;
                self.push(Op::Branch(target));
                Ok(())
            }
            ("brx", [index, Operand::Symbol(table, 0)]) => {
                let index = self.source(index, Slot::Word, false)?;
                let entry = self.entry;
                let labels = entry.body.table(ins.scope, table);
                let labels =
                    labels.ok_or_else(|| self.error(format!("unknown table of branches `{table}`")))?;
                let targets = labels.iter().map(|label| self.target(ins, label)).collect::<Result<_, _>>()?;
                self.push(Op::BranchTable { index, targets });
                Ok(())
            }
            ("ret" | "exit", []) => {
                self.push(Op::Exit);
                Ok(())
            }
            ("trap", []) => {
                self.push(Op::Trap);
                Ok(())
            }
            ("membar" | "fence", []) => {
                self.push(Op::Fence);
                Ok(())
            }
            ("mov", [Operand::Vector(parts), source]) => self.unpack(&words, parts, source),
            ("mov", [dst, Operand::Vector(parts)]) => self.pack(&words, dst, parts),
            ("cvta", [dst, source]) if words.get(1) == Some(&"param") => {
                let base = self.frame.special(Special::ParamBase);
                let source = self.source(source, Slot::Double, false)?;
                let dst = self.destination(dst, Slot::Double)?;
                self.emit("add.u64", dst, &[base, source])
            }
            ("setp", _) => self.compare(ins, &words, args),
            ("cvt", [dst, source]) => self.convert(ins, &words, dst, source),
            ("ld" | "ldu", [dst, address]) => self.load(&words, dst, address),
            ("st", [address, source]) => self.store(&words, address, source),
            ("atom" | "red", _) => self.atomic(ins, &words, args),
            ("cp", _) => self.async_copy(ins, &words, args),
            ("bar" | "barrier", _) => self.barrier(ins, &words, args),
            ("shfl", _) => self.shuffle(ins, &words, args),
            ("vote", _) => self.vote(ins, &words, args),
            ("redux" | "match", _) => self.collect(ins, &words, args),
            ("ldmatrix", _) => self.load_matrix(ins, &words, args),
            ("mma", _) => self.mma(ins, &words, args),
            ("activemask", [dst]) => {
                let dst = self.destination(dst, Slot::Word)?;
                self.push(Op::ActiveMask(dst));
                Ok(())
            }
            _ => self.row(&ins.opcode, args),
        }
    }

    pub(super) fn unknown<T>(&self, ins: &Instruction) -> Result<T, PtxError> {
        Err(self.error(format!(
            "opcode `{}` with {} operands is not implemented",
            ins.opcode,
            ins.operands.len()
        )))
    }

    fn target(&self, ins: &Instruction, label: &str) -> Result<u32, PtxError> {
        let found = self.entry.body.label(ins.scope, label);
        found.map(|index| index as u32).ok_or_else(|| self.error(format!("unknown label `{label}`")))
    }

    /// An instruction that stands in the table under its full name.
    fn row(&mut self, name: &str, args: &[Operand]) -> Result<(), PtxError> {
        let Some(row) = alu::find(name).filter(|row| !row.name.contains('@')) else {
            return Err(self.error(format!("opcode `{name}` is not implemented")));
        };
        let [dst, sources @ ..] = args else {
            return Err(self.error(format!("`{name}` without operands")));
        };
        if sources.len() != row.src.len() {
            return Err(self.error(format!(
                "`{name}` takes {} sources, found {}",
                row.src.len(),
                sources.len()
            )));
        }
        let mut places = Vec::new();
        for (source, slot) in sources.iter().zip(row.src) {
            places.push(self.source(source, *slot, false)?);
        }
        let dst = self.destination(dst, row.dst)?;
        self.emit(name, dst, &places)
    }

    /// `mov.b64 {a, b}, c`
    fn unpack(&mut self, words: &[&str], parts: &[Operand], source: &Operand) -> Result<(), PtxError> {
        let ([_, ty], count) = (words, parts.len()) else { return Err(self.error("a mov without a type")) };
        let slot = slot_of(ty).ok_or_else(|| self.error(format!("`mov.{ty}` is not implemented")))?;
        let name = format!("part.{ty}@{count}");
        let Some(row) = alu::find(&name) else {
            return Err(self.error(format!("`mov.{ty}` into {count} parts is not implemented")));
        };
        let whole = self.source(source, slot, false)?;
        for (index, part) in parts.iter().enumerate() {
            let index = self.frame.constant(Slot::Word, index as u64);
            let dst = self.destination(part, row.dst)?;
            self.emit(&name, dst, &[whole, index])?;
        }
        Ok(())
    }

    /// `mov.b64 c, {a, b}`
    fn pack(&mut self, words: &[&str], dst: &Operand, parts: &[Operand]) -> Result<(), PtxError> {
        let [_, ty] = words else { return Err(self.error("a mov without a type")) };
        let name = format!("pack.{ty}@{}", parts.len());
        let Some(row) = alu::find(&name) else {
            return Err(self.error(format!("`mov.{ty}` from {} parts is not implemented", parts.len())));
        };
        let mut places = Vec::new();
        for (part, slot) in parts.iter().zip(row.src) {
            places.push(self.source(part, *slot, false)?);
        }
        let dst = self.destination(dst, row.dst)?;
        self.emit(&name, dst, &places)
    }

    /// `setp.cmp[.and|or|xor].type p[|q], a, b[, c]`: with `t = a cmp b`, p = t op c and q = !t op c.
    fn compare(&mut self, ins: &Instruction, words: &[&str], args: &[Operand]) -> Result<(), PtxError> {
        let (cmp, combine, ty) = match *words {
            [_, cmp, ty] => (cmp, None, ty),
            [_, cmp, combine @ ("and" | "or" | "xor"), ty] => (cmp, Some(combine), ty),
            _ => return self.unknown(ins),
        };
        let (dst, a, b, c) = match (args, combine) {
            ([dst, a, b], None) => (dst, a, b, None),
            ([dst, a, b, c], Some(_)) => (dst, a, b, Some(c)),
            _ => return self.unknown(ins),
        };
        let name = format!("setp.{cmp}.{ty}");
        let Some(row) = alu::find(&name) else { return self.unknown(ins) };
        let sources = [self.source(a, row.src[0], false)?, self.source(b, row.src[1], false)?];
        let (first, second) = match dst {
            Operand::Pair(first, second) => (&**first, Some(&**second)),
            single => (single, None),
        };
        let first = self.destination(first, Slot::Mask)?;
        let second = second.map(|operand| self.destination(operand, Slot::Mask)).transpose()?;
        if combine.is_none() && second.is_none() {
            return self.emit(&name, first, &sources);
        }
        let c = c.map(|operand| self.source(operand, Slot::Mask, false)).transpose()?;
        // Both answers are complete before either is written: a destination may be `c`.
        let yes = self.temporary(&name, Slot::Mask, &sources)?;
        let no = self.temporary("not.pred", Slot::Mask, &[yes])?;
        let (yes, no) = match (combine, c) {
            (Some(combine), Some(c)) => {
                let name = format!("{combine}.pred");
                (self.temporary(&name, Slot::Mask, &[yes, c])?, self.temporary(&name, Slot::Mask, &[no, c])?)
            }
            _ => (yes, no),
        };
        self.emit("mov.pred", first, &[yes])?;
        match second {
            Some(second) => self.emit("mov.pred", second, &[no]),
            None => Ok(()),
        }
    }

    /// `cvt`, whose registers may be wider than its types.
    fn convert(
        &mut self,
        ins: &Instruction,
        words: &[&str],
        dst: &Operand,
        source: &Operand,
    ) -> Result<(), PtxError> {
        let Some(row) = alu::find(&ins.opcode) else { return self.unknown(ins) };
        let source = self.source(source, row.src[0], true)?;
        let wide = match dst {
            Operand::Reg(reg) => self.frame.reg(*reg) == (self.frame.reg(*reg).0, Slot::Double),
            _ => false,
        };
        if row.dst == Slot::Word && wide {
            let narrow = self.temporary(&ins.opcode, Slot::Word, &[source])?;
            let signed = words.get(words.len() - 2).is_some_and(|ty| ty.starts_with('s'));
            let dst = self.destination(dst, Slot::Double)?;
            return self.emit(if signed { "cvt.s64.s32" } else { "cvt.u64.u32" }, dst, &[narrow]);
        }
        let dst = self.destination(dst, row.dst)?;
        self.emit(&ins.opcode, dst, &[source])
    }
}

/// The layout of a register of that type.
pub(super) fn slot_of(ty: &str) -> Option<Slot> {
    match Type::from_suffix(ty)?.bytes() {
        0 => Some(Slot::Mask),
        1..=4 => Some(Slot::Word),
        8 => Some(Slot::Double),
        _ => None,
    }
}

/// The first word that names a space.
pub(super) fn space_of(words: &[&str]) -> Space {
    words.iter().find_map(|word| Space::from_suffix(word)).unwrap_or(Space::Generic)
}

/// Why an opcode must not occur at all, as against one that is merely not implemented.
fn refused(words: &[&str]) -> Option<&'static str> {
    let has = |word: &str| words.contains(&word);
    let float = has("f32") || has("f64") || has("f16") || has("bf16") || has("f16x2") || has("bf16x2");
    if has("ftz") {
        return Some("it flushes subnormals to zero, which the arithmetic contract forbids");
    }
    if has("approx") || has("full") {
        return Some("an approximation has no bits two devices share");
    }
    if float && matches!(words[0], "atom" | "red") {
        return Some("a floating-point atomic adds in the order of arrival");
    }
    if has("rz") || has("rm") || has("rp") {
        return Some("the arithmetic contract rounds to nearest even");
    }
    if float && matches!(words[0], "add" | "sub" | "mul" | "mad" | "fma") && !has("rn") {
        return Some("without .rn the assembler may contract it; compile with --fmad=false");
    }
    None
}
