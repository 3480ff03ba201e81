//! Registers, literals and symbols to their places in the frame.

use std::collections::BTreeMap;

use super::Decoder;
use crate::exec::alu;
use crate::exec::lane::{Slot, Slots};
use crate::exec::memory::{Address, Base};
use crate::exec::program::{Op, Special};
use crate::ptx::PtxError;
use crate::ptx::ast::{Operand, RegId, Space, Type};

/// The layout of a warp's registers.
pub(super) struct Frame {
    regs: Vec<(u32, Slot)>,
    end: u32,
    constants: BTreeMap<(Slot, u64), u32>,
    specials: BTreeMap<Special, u32>,
}

impl Frame {
    pub fn new(types: &[Type]) -> Self {
        let mut frame =
            Self { regs: Vec::new(), end: 0, constants: BTreeMap::new(), specials: BTreeMap::new() };
        for ty in types {
            let slot = match ty.bytes() {
                0 => Slot::Mask,
                8 => Slot::Double,
                _ => Slot::Word,
            };
            let at = frame.fresh(slot);
            frame.regs.push((at, slot));
        }
        frame
    }

    /// A register of nobody's.
    pub fn fresh(&mut self, slot: Slot) -> u32 {
        let at = self.end;
        self.end += slot.bytes() as u32;
        at
    }

    /// A register that holds `bits` in all lanes.
    pub fn constant(&mut self, slot: Slot, bits: u64) -> u32 {
        if let Some(&at) = self.constants.get(&(slot, bits)) {
            return at;
        }
        let at = self.fresh(slot);
        self.constants.insert((slot, bits), at);
        at
    }

    pub fn special(&mut self, special: Special) -> u32 {
        if let Some(&at) = self.specials.get(&special) {
            return at;
        }
        let at = self.fresh(special.slot());
        self.specials.insert(special, at);
        at
    }

    pub fn reg(&self, reg: RegId) -> (u32, Slot) {
        self.regs[reg.0 as usize]
    }

    pub fn predicate(&self, reg: RegId) -> Result<u32, String> {
        match self.reg(reg) {
            (at, Slot::Mask) => Ok(at),
            _ => Err("a guard that is not a predicate".to_string()),
        }
    }

    pub fn bytes(&self) -> usize {
        self.end as usize
    }

    pub fn constants(&self) -> Vec<(u32, Slot, u64)> {
        self.constants.iter().map(|(&(slot, bits), &at)| (at, slot, bits)).collect()
    }

    pub fn specials(&self) -> Vec<(Special, u32)> {
        self.specials.iter().map(|(&special, &at)| (special, at)).collect()
    }
}

impl Decoder<'_> {
    /// The place a source is read from, as a value of `slot`. `narrow` allows a register wider than that,
    /// whose low bits are meant.
    pub(super) fn source(&mut self, operand: &Operand, slot: Slot, narrow: bool) -> Result<u32, PtxError> {
        match operand {
            Operand::Reg(reg) => match (self.frame.reg(*reg), slot) {
                ((at, found), _) if found == slot => Ok(at),
                ((at, Slot::Double), Slot::Word) if narrow => {
                    self.temporary("cvt.u32.u64", Slot::Word, &[at])
                }
                ((_, found), _) => Err(self.error(format!("a {found:?} register where {slot:?} is read"))),
            },
            Operand::Not(reg) if slot == Slot::Mask => {
                let at = self.frame.predicate(*reg).map_err(|what| self.error(what))?;
                self.temporary("not.pred", Slot::Mask, &[at])
            }
            Operand::Special(name) => match Special::from_name(name) {
                Some(special) if special.slot() == slot => Ok(self.frame.special(special)),
                _ => Err(self.error(format!("special register `{name}` is not implemented here"))),
            },
            Operand::Symbol(name, offset) => {
                if name == "WARP_SZ" {
                    return Ok(self.frame.constant(slot, 32));
                }
                let symbol = self.symbol(name)?;
                Ok(self.frame.constant(slot, symbol.address.wrapping_add(*offset as u64)))
            }
            _ => {
                let bits = self.literal(operand, slot)?;
                Ok(self.frame.constant(slot, bits))
            }
        }
    }

    fn literal(&self, operand: &Operand, slot: Slot) -> Result<u64, PtxError> {
        match (operand, slot) {
            (Operand::Int(value), Slot::Word) => Ok(*value as u64 & 0xffff_ffff),
            (Operand::Int(value), Slot::Double) => Ok(*value as u64),
            (Operand::Int(value), Slot::Mask) => Ok(if *value != 0 { 0xffff_ffff } else { 0 }),
            (Operand::F32(bits), Slot::Word) => Ok(u64::from(*bits)),
            (Operand::F32(bits), Slot::Double) => Ok(f64::from(f32::from_bits(*bits)).to_bits()),
            (Operand::F64(bits), Slot::Double) => Ok(*bits),
            (Operand::F64(bits), Slot::Word) => Ok(u64::from((f64::from_bits(*bits) as f32).to_bits())),
            _ => Err(self.error(format!("{operand:?} cannot be read as {slot:?}"))),
        }
    }

    pub(super) fn symbol(&self, name: &str) -> Result<super::Symbol, PtxError> {
        self.symbols.get(name).copied().ok_or_else(|| self.error(format!("unknown symbol `{name}`")))
    }

    /// The place a result of `slot` goes, and what must follow if the register is wider.
    pub(super) fn destination(&mut self, operand: &Operand, slot: Slot) -> Result<u32, PtxError> {
        match operand {
            Operand::Reg(reg) => match self.frame.reg(*reg) {
                (at, found) if found == slot => Ok(at),
                (_, found) => Err(self.error(format!("a {found:?} register where {slot:?} is written"))),
            },
            Operand::Sink => Ok(self.frame.fresh(slot)),
            _ => Err(self.error(format!("{operand:?} is not a destination"))),
        }
    }

    /// Emits a row of the table into a register of nobody's, under the guard of the instruction in hand.
    pub(super) fn temporary(&mut self, name: &str, slot: Slot, sources: &[u32]) -> Result<u32, PtxError> {
        let dst = self.frame.fresh(slot);
        self.emit(name, dst, sources)?;
        Ok(dst)
    }

    /// Emits a row of the table.
    pub(super) fn emit(&mut self, name: &str, dst: u32, sources: &[u32]) -> Result<(), PtxError> {
        let row = alu::find(name).ok_or_else(|| self.error(format!("opcode `{name}` is not implemented")))?;
        let mut slots = Slots { dst, src: [0; 4] };
        slots.src[..sources.len()].copy_from_slice(sources);
        self.push(Op::Lanes(row.run(), slots));
        Ok(())
    }

    /// An address operand of an instruction that names `space`.
    pub(super) fn address(&mut self, operand: &Operand, space: Space) -> Result<Address, PtxError> {
        let Operand::Address(base, offset) = operand else {
            return Err(self.error(format!("expected an address in brackets, found {operand:?}")));
        };
        let mut offset = *offset;
        let mut space = space;
        let base = match &**base {
            Operand::Reg(reg) => match self.frame.reg(*reg) {
                (at, Slot::Word) => Base::Word(at),
                (at, Slot::Double) => Base::Double(at),
                (_, Slot::Mask) => return Err(self.error("a predicate as an address")),
            },
            Operand::Int(value) => {
                offset = offset.wrapping_add(*value);
                Base::None
            }
            Operand::Symbol(name, inner) => {
                let symbol = self.symbol(name)?;
                // What a call passes is a parameter by its name and local memory by its place.
                let passed = space == Space::Param && symbol.space == Space::Local;
                if space == Space::Generic || passed {
                    space = symbol.space;
                }
                if space != symbol.space {
                    return Err(
                        self.error(format!("`{name}` lies in {:?} memory, not {space:?}", symbol.space))
                    );
                }
                offset = offset.wrapping_add(*inner).wrapping_add(symbol.address as i64);
                Base::None
            }
            other => return Err(self.error(format!("{other:?} as an address"))),
        };
        Ok(Address { space, base, offset })
    }
}
