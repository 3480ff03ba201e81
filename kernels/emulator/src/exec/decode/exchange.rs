//! Instructions between the threads of a warp or a block.

use super::Decoder;
use crate::exec::lane::Slot;
use crate::exec::program::Op;
use crate::exec::warp_sync::{Ballot, Barrier, Collect, Fold, Gathering, Reduce, Shuffle, ShuffleMode, Vote};
use crate::ptx::PtxError;
use crate::ptx::ast::{Instruction, Operand};

impl Decoder<'_> {
    pub(super) fn barrier(
        &mut self,
        ins: &Instruction,
        words: &[&str],
        args: &[Operand],
    ) -> Result<(), PtxError> {
        // `.cta` and `.aligned` say what `bar` means anyway.
        let kind: Vec<&str> =
            words[1..].iter().copied().filter(|word| !matches!(*word, "cta" | "aligned")).collect();
        match (&kind[..], args) {
            (["warp", "sync"], [members]) => {
                let members = self.source(members, Slot::Word, false)?;
                self.push(Op::WarpBarrier(members));
                Ok(())
            }
            (["sync"], [id, threads @ ..]) if threads.len() <= 1 => {
                self.push_barrier(id, threads.first(), None)
            }
            (["red", fold, ty], [dst, id, rest @ ..]) => {
                let (what, slot) = match (*fold, *ty) {
                    ("popc", "u32") => (Fold::Count, Slot::Word),
                    ("and", "pred") => (Fold::All, Slot::Mask),
                    ("or", "pred") => (Fold::Any, Slot::Mask),
                    _ => return self.unknown(ins),
                };
                let (threads, predicate) = match rest {
                    [predicate] => (None, predicate),
                    [threads, predicate] => (Some(threads), predicate),
                    _ => return self.unknown(ins),
                };
                let src = self.source(predicate, Slot::Mask, false)?;
                let dst = self.destination(dst, slot)?;
                self.push_barrier(id, threads, Some(Reduce { what, dst, src }))
            }
            _ => self.unknown(ins),
        }
    }

    fn push_barrier(
        &mut self,
        id: &Operand,
        threads: Option<&Operand>,
        reduce: Option<Reduce>,
    ) -> Result<(), PtxError> {
        let id = self.source(id, Slot::Word, false)?;
        let threads = threads.map(|threads| self.source(threads, Slot::Word, false)).transpose()?;
        self.push(Op::Barrier(Box::new(Barrier { id, threads, reduce })));
        Ok(())
    }

    pub(super) fn shuffle(
        &mut self,
        ins: &Instruction,
        words: &[&str],
        args: &[Operand],
    ) -> Result<(), PtxError> {
        let ([_, "sync", mode, "b32"], [dst, value, lane, clamp, members]) = (words, args) else {
            return self.unknown(ins);
        };
        let mode = match *mode {
            "up" => ShuffleMode::Up,
            "down" => ShuffleMode::Down,
            "bfly" => ShuffleMode::Butterfly,
            "idx" => ShuffleMode::Index,
            _ => return self.unknown(ins),
        };
        let [value, lane, clamp, members] =
            [value, lane, clamp, members].map(|operand| self.source(operand, Slot::Word, false));
        let (dst, in_range) = match dst {
            Operand::Pair(dst, predicate) => (&**dst, Some(self.destination(predicate, Slot::Mask)?)),
            dst => (dst, None),
        };
        let dst = self.destination(dst, Slot::Word)?;
        let shuffle =
            Shuffle { mode, dst, in_range, value: value?, lane: lane?, clamp: clamp?, members: members? };
        self.push(Op::Shuffle(Box::new(shuffle)));
        Ok(())
    }

    pub(super) fn vote(
        &mut self,
        ins: &Instruction,
        words: &[&str],
        args: &[Operand],
    ) -> Result<(), PtxError> {
        let ([_, "sync", what, ty], [dst, predicate, members]) = (words, args) else {
            return self.unknown(ins);
        };
        let (what, slot) = match (*what, *ty) {
            ("all", "pred") => (Ballot::All, Slot::Mask),
            ("any", "pred") => (Ballot::Any, Slot::Mask),
            ("uni", "pred") => (Ballot::Uniform, Slot::Mask),
            ("ballot", "b32") => (Ballot::Bits, Slot::Word),
            _ => return self.unknown(ins),
        };
        let src = self.source(predicate, Slot::Mask, false)?;
        let members = self.source(members, Slot::Word, false)?;
        let dst = self.destination(dst, slot)?;
        self.push(Op::Vote(Box::new(Vote { what, dst, src, members })));
        Ok(())
    }

    /// `redux.sync.op.type d, a, members` and `match.any|all.sync.type d[|p], a, members`.
    pub(super) fn collect(
        &mut self,
        ins: &Instruction,
        words: &[&str],
        args: &[Operand],
    ) -> Result<(), PtxError> {
        let [dst, value, members] = args else { return self.unknown(ins) };
        let (dst, predicate) = match dst {
            Operand::Pair(dst, predicate) => (&**dst, Some(&**predicate)),
            dst => (dst, None),
        };
        let (what, ty) = match *words {
            ["redux", "sync", what, ty] => {
                let what = match (what, ty) {
                    ("add", "u32" | "s32") => Gathering::Add,
                    ("min", "u32") => Gathering::Min,
                    ("max", "u32") => Gathering::Max,
                    ("min", "s32") => Gathering::SignedMin,
                    ("max", "s32") => Gathering::SignedMax,
                    ("and", "b32") => Gathering::And,
                    ("or", "b32") => Gathering::Or,
                    ("xor", "b32") => Gathering::Xor,
                    _ => return self.unknown(ins),
                };
                (what, ty)
            }
            ["match", "any", "sync", ty @ ("b32" | "b64")] => (Gathering::Same, ty),
            ["match", "all", "sync", ty @ ("b32" | "b64")] => {
                let at = predicate.map(|predicate| self.destination(predicate, Slot::Mask)).transpose()?;
                (Gathering::AllSame(at), ty)
            }
            _ => return self.unknown(ins),
        };
        if predicate.is_some() && !matches!(what, Gathering::AllSame(_)) {
            return self.unknown(ins);
        }
        let wide = ty == "b64";
        let src = self.source(value, if wide { Slot::Double } else { Slot::Word }, false)?;
        let members = self.source(members, Slot::Word, false)?;
        let dst = self.destination(dst, Slot::Word)?;
        self.push(Op::Collect(Box::new(Collect { what, dst, src, wide, members })));
        Ok(())
    }
}
