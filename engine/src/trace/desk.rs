//! What one tile is computed from: first it is found out what that is, then it lies here.

use super::Window;
use super::program::{Op, Source};
use super::slices::Sparse;
use crate::data::place_in_shard;
use spec::Operation;
use std::collections::BTreeMap;
use std::ops::Range;

/// One op's inputs, as far as they are known. What is not is noted as asked for, and reads as zeros.
pub struct Desk<'a> {
    pub window: &'a Window<'a>,
    pub op: &'a Op,
    /// What was opened.
    pub known: BTreeMap<Source, Sparse>,
    /// What was asked for and is not known.
    pub asked: BTreeMap<Source, Vec<Range<u64>>>,
    /// Something was read that is not there, or is not what it should be.
    pub wrong: bool,
}

impl<'a> Desk<'a> {
    pub fn new(window: &'a Window<'a>, op: &'a Op) -> Self {
        Self { window, op, known: BTreeMap::new(), asked: BTreeMap::new(), wrong: false }
    }

    /// Bytes of an input.
    pub fn bytes(&mut self, input: usize, range: Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        let mut at = 0;
        for piece in self.op.inputs.get(input).into_iter().flatten() {
            let (from, to) = (range.start.max(at), range.end.min(at + piece.bytes));
            if from < to {
                let start = piece.offset + (from - at);
                self.read(piece.source, start..start + (to - from), &mut bytes);
            }
            at += piece.bytes;
        }
        if bytes.len() as u64 != range.end - range.start {
            self.wrong = true;
            bytes.resize((range.end - range.start) as usize, 0);
        }
        bytes
    }

    fn read(&mut self, source: Source, range: Range<u64>, to: &mut Vec<u8>) {
        let len = (range.end - range.start) as usize;
        let zeros = to.len() + len;
        if source == Source::Zeros {
            return to.resize(zeros, 0);
        }
        let Some(known) = self.known.get(&source) else {
            self.asked.entry(source).or_default().push(range);
            return to.resize(zeros, 0);
        };
        match known.get(range) {
            Some(bytes) => to.extend_from_slice(bytes),
            None => {
                self.wrong = true;
                to.resize(zeros, 0);
            }
        }
    }

    /// Values of an input.
    pub fn floats(&mut self, input: usize, range: Range<usize>) -> Vec<f32> {
        floats(&self.bytes(input, 4 * range.start as u64..4 * range.end as u64))
    }

    /// All values of an input.
    pub fn all(&mut self, input: usize) -> Vec<f32> {
        let bytes: u64 = self.op.inputs.get(input).into_iter().flatten().map(|piece| piece.bytes).sum();
        self.floats(input, 0..bytes as usize / 4)
    }

    /// A part of an input that is a matrix with rows of `width` values.
    pub fn matrix(&mut self, input: usize, width: usize, rows: Range<usize>, cols: Range<usize>) -> Vec<f32> {
        if cols.len() == width {
            return self.floats(input, rows.start * width..rows.end * width);
        }
        rows.flat_map(|row| self.floats(input, row * width + cols.start..row * width + cols.end)).collect()
    }

    /// Tokens of some rows of the op's microbatch, or the targets one later; `None` as long as they are not known.
    pub fn tokens(&mut self, rows: Range<usize>, targets: bool) -> Option<Vec<u32>> {
        let said = self.window.said.get(self.op.operation as usize)?;
        let (Operation::Forward(member) | Operation::Backward(member)) = &said.operation else { return None };
        let run = self.window.run;
        let context = run.model.context as usize;
        let mut tokens = Vec::with_capacity(rows.len());
        let mut row = rows.start;
        while row < rows.end {
            let (sequence, within) = (row / context, row % context);
            let upto = rows.end.min((sequence + 1) * context);
            let (start, width) = place_in_shard(run, self.window.epoch, member.microbatch, sequence as u64)?;
            let first = start + (within + usize::from(targets)) as u64 * width;
            let mut bytes = Vec::new();
            self.read(Source::Shard, first..first + (upto - row) as u64 * width, &mut bytes);
            let token =
                |bytes: &[u8]| bytes.iter().rev().fold(0, |token, &byte| token << 8 | u32::from(byte));
            tokens.extend(bytes.chunks_exact(width as usize).map(token));
            row = upto;
        }
        if !self.known.contains_key(&Source::Shard) {
            return None;
        }
        // An honest engine refuses such a shard.
        self.wrong |= tokens.iter().any(|token| *token >= run.model.vocab);
        (!self.wrong).then_some(tokens)
    }
}

/// Bytes as values.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
}
