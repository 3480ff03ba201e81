//! Instructions of tensor cores.

use super::Decoder;
use crate::exec::lane::Slot;
use crate::exec::program::Op;
use crate::exec::tensor::{Element, LoadMatrix, Mma};
use crate::ptx::PtxError;
use crate::ptx::ast::{Instruction, Operand, Space};

impl Decoder<'_> {
    /// `ldmatrix.sync.aligned.m8n8.x1|x2|x4[.trans].shared.b16 {…}, [a]`
    pub(super) fn load_matrix(
        &mut self,
        ins: &Instruction,
        words: &[&str],
        args: &[Operand],
    ) -> Result<(), PtxError> {
        let (count, transposed) = match *words {
            [_, "sync", "aligned", "m8n8", count, "shared" | "shared::cta", "b16"] => (count, false),
            [_, "sync", "aligned", "m8n8", count, "trans", "shared" | "shared::cta", "b16"] => (count, true),
            _ => return self.unknown(ins),
        };
        let [dst, address] = args else { return self.unknown(ins) };
        let parts = parts(dst);
        if !matches!((count, parts.len()), ("x1", 1) | ("x2", 2) | ("x4", 4)) {
            return self.unknown(ins);
        }
        let address = self.address(address, Space::Shared)?;
        let regs = self.words_to(parts)?;
        let members = self.frame.constant(Slot::Word, u64::from(u32::MAX));
        self.push(Op::LoadMatrix(Box::new(LoadMatrix { address, transposed, regs, members })));
        Ok(())
    }

    /// `mma.sync.aligned.m16n8kK.row.col[.satfinite].D.A.B.C d, a, b, c`
    pub(super) fn mma(
        &mut self,
        ins: &Instruction,
        words: &[&str],
        args: &[Operand],
    ) -> Result<(), PtxError> {
        let (shape, saturate, types) = match *words {
            [_, "sync", "aligned", shape, "row", "col", "satfinite", d, a, b, c] => {
                (shape, true, [d, a, b, c])
            }
            [_, "sync", "aligned", shape, "row", "col", d, a, b, c] => (shape, false, [d, a, b, c]),
            _ => return self.unknown(ins),
        };
        let element = |name: &str| match name {
            "s8" => Some(Element::Signed8),
            "u8" => Some(Element::Unsigned8),
            "f16" => Some(Element::Half),
            "bf16" => Some(Element::Brain),
            _ => None,
        };
        let (Some(of_a), Some(of_b)) = (element(types[1]), element(types[2])) else {
            return self.unknown(ins);
        };
        let integers = matches!(of_a, Element::Signed8 | Element::Unsigned8);
        let known = match (shape, types[0], types[3]) {
            ("m16n8k16" | "m16n8k32", "s32", "s32") => {
                integers && matches!(of_b, Element::Signed8 | Element::Unsigned8)
            }
            ("m16n8k8" | "m16n8k16", "f32", "f32") => !integers && of_a == of_b && !saturate,
            _ => false,
        };
        let ([d, a, b, c], Some(k)) = (args, shape.strip_prefix("m16n8k").and_then(|k| k.parse().ok()))
        else {
            return self.unknown(ins);
        };
        let (d, a, b, c) = (parts(d), parts(a), parts(b), parts(c));
        if !known || (a.len(), b.len()) != Mma::registers(k, of_a) || (d.len(), c.len()) != (4, 4) {
            return self.unknown(ins);
        }
        let (a, b, c) = (self.words_from(a)?, self.words_from(b)?, self.words_from(c)?);
        let d = self.words_to(d)?;
        let (Ok(c), Ok(d)) = (c.try_into(), d.try_into()) else { return self.unknown(ins) };
        let members = self.frame.constant(Slot::Word, u64::from(u32::MAX));
        self.push(Op::Mma(Box::new(Mma { k, of_a, of_b, saturate, d, a, b, c, members })));
        Ok(())
    }

    fn words_from(&mut self, parts: &[Operand]) -> Result<Vec<u32>, PtxError> {
        parts.iter().map(|part| self.source(part, Slot::Word, false)).collect()
    }

    fn words_to(&mut self, parts: &[Operand]) -> Result<Vec<u32>, PtxError> {
        parts.iter().map(|part| self.destination(part, Slot::Word)).collect()
    }
}

fn parts(operand: &Operand) -> &[Operand] {
    match operand {
        Operand::Vector(parts) => parts,
        single => std::slice::from_ref(single),
    }
}
