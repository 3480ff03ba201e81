//! The recorder: what [`crate::ops`] notes of each op while one listens on its thread. Nobody listens in ordinary work, and
//! then an op costs a look at one flag more.
//!
//! Which outputs an op reads is seen from where they lie: every range of memory belongs to whoever wrote it last.

use super::program::{Input, Kind, Op, Piece, Program, Source};
use crate::tensor::Slice;
use crate::work::Done;
use kernels::device::DeviceError;
use spec::Digest;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

thread_local! {
    static LISTENS: Cell<bool> = const { Cell::new(false) };
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

/// What is noted of a window.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// The ops so far.
    pub program: Program,
    /// Digests of their outputs; none where nothing is computed.
    pub digests: Vec<Digest>,
    /// Outputs that were asked for.
    pub kept: BTreeMap<u32, Vec<u8>>,
    keep: BTreeSet<u32>,
    computes: bool,
    operation: u32,
    writers: Writers,
    /// The norm made last.
    norm: Option<Piece>,
    /// Something was read that nobody is known to have written.
    unknown: bool,
}

impl Recorder {
    /// One that keeps the outputs in `keep`; of work on nothing (`computes` false) only the program.
    pub fn new(computes: bool, keep: BTreeSet<u32>) -> Self {
        Self { computes, keep, ..Self::default() }
    }

    /// Ops noted from now on are of that operation.
    pub fn begin_operation(&mut self, operation: u32) {
        self.operation = operation;
    }

    /// Says where values come from that no op made.
    pub fn place(&mut self, values: Slice<'_>, source: Source, offset: u64) {
        self.writers.write(values.place(), source, offset);
    }

    /// Where values come from.
    pub fn input(&mut self, values: Slice<'_>) -> Input {
        let found = self.writers.read(values.place());
        self.unknown |= found.is_none();
        found.unwrap_or_default()
    }

    /// Whether all that was read is known.
    pub fn is_whole(&self) -> bool {
        !self.unknown
    }

    /// Notes an op with outputs of so many bytes; the number of the first.
    pub fn note(&mut self, kind: Kind, inputs: Vec<Input>, outputs: Vec<u64>) -> u32 {
        let first = self.program.values();
        self.program.ops.push(Op { operation: self.operation, kind, inputs, first, outputs });
        first
    }

    /// The bytes of an output, handed over piece by piece; none where nothing is computed.
    fn value(
        &mut self,
        number: u32,
        pieces: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        if !self.computes {
            return Ok(());
        }
        let mut hasher = blake3::Hasher::new();
        let mut kept = self.keep.contains(&number).then(Vec::new);
        pieces(&mut |piece| {
            hasher.update_rayon(piece);
            if let Some(kept) = &mut kept {
                kept.extend_from_slice(piece);
            }
        })?;
        let digest = Digest(*hasher.finalize().as_bytes());
        match self.digests.get_mut(number as usize) {
            Some(before) => *before = digest,
            None => self.digests.push(digest),
        }
        if let Some(kept) = kept {
            self.kept.insert(number, kept);
        }
        Ok(())
    }

    /// Whether there are values, and not only a program.
    pub fn computes(&self) -> bool {
        self.computes
    }

    /// What came of the operation: whoever was asked to keep it keeps this.
    pub fn deliver(&mut self, done: &Done) {
        let ops = self.program.ops.iter().rev().take_while(|op| op.operation == self.operation);
        for op in ops {
            let bytes = match op.kind {
                Kind::Encode(_) => done.output.clone(),
                Kind::Mean => done.loss_q32.map(|loss| loss.to_le_bytes().to_vec()),
                _ => None,
            };
            if let (Some(bytes), Some(kept)) = (bytes, self.kept.get_mut(&op.first)) {
                *kept = bytes;
            }
        }
    }

    /// An output whose bytes `write` hands over.
    pub fn made_by(
        &mut self,
        number: u32,
        write: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<(), DeviceError>,
    ) -> Result<(), DeviceError> {
        self.value(number, write)
    }

    /// An output that lies nowhere.
    pub fn made(&mut self, number: u32, bytes: &[u8]) -> Result<(), DeviceError> {
        self.value(number, |sink| {
            sink(bytes);
            Ok(())
        })
    }

    fn wrote(&mut self, number: u32, values: Slice<'_>) -> Result<(), DeviceError> {
        self.writers.write(values.place(), Source::Value(number), 0);
        self.value(number, |sink| values.pieces(|piece| sink(bytemuck::cast_slice(piece))))
    }
}

/// Somebody listens on this thread as long as this is there.
pub(crate) struct Listening(());

/// Listens on this thread from now on.
pub(crate) fn listen(recorder: Recorder) -> Listening {
    RECORDER.set(Some(recorder));
    LISTENS.set(true);
    Listening(())
}

impl Listening {
    /// What was noted.
    pub fn finish(self) -> Recorder {
        RECORDER.take().unwrap_or_default()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        LISTENS.set(false);
        RECORDER.set(None);
    }
}

/// As long as this is there nobody listens; then again who did before.
pub(crate) struct Quiet(bool);

/// See [`Quiet`].
pub(crate) fn quiet() -> Quiet {
    Quiet(LISTENS.replace(false))
}

impl Drop for Quiet {
    fn drop(&mut self) {
        LISTENS.set(self.0);
    }
}

/// Does something with the recorder, if one listens.
pub(crate) fn with<T>(act: impl FnOnce(&mut Recorder) -> T) -> Option<T> {
    if !LISTENS.get() {
        return None;
    }
    RECORDER.with_borrow_mut(|recorder| recorder.as_mut().map(act))
}

/// Whether somebody listens to work on nothing.
pub(crate) fn imagines() -> bool {
    with(|recorder| !recorder.computes).unwrap_or(false)
}

/// What an op is about to read, if somebody listens: asked before it writes, because it may write to the same place.
#[derive(Debug)]
pub(crate) struct Reads(Vec<Input>);

/// See [`Reads`].
pub(crate) fn reads(values: &[Slice<'_>]) -> Option<Reads> {
    with(|recorder| Reads(values.iter().map(|values| recorder.input(*values)).collect()))
}

/// Notes the op that read, once it has written.
pub(crate) fn wrote(
    reads: Option<Reads>,
    done: Result<(), DeviceError>,
    kind: Kind,
    values: &[Slice<'_>],
) -> Result<(), DeviceError> {
    done?;
    let Some(Reads(inputs)) = reads else { return Ok(()) };
    let noted = with(|recorder| {
        let outputs = values.iter().map(|values| 4 * values.len() as u64).collect();
        let first = recorder.note(kind, inputs, outputs);
        (first..).zip(values).try_for_each(|(number, values)| recorder.wrote(number, *values))
    });
    noted.unwrap_or(Ok(()))
}

/// Notes the op that read, and whose output lies nowhere.
pub(crate) fn made(reads: Option<Reads>, kind: Kind, bytes: &[u8]) -> Result<(), DeviceError> {
    let Some(Reads(inputs)) = reads else { return Ok(()) };
    let noted = with(|recorder| {
        let first = recorder.note(kind, inputs, vec![bytes.len() as u64]);
        recorder.made(first, bytes)
    });
    noted.unwrap_or(Ok(()))
}

/// Notes what reads the payload of its operation.
pub(crate) fn decoded(kind: Kind, payload_bytes: u64, values: Slice<'_>) -> Result<(), DeviceError> {
    let noted = with(|recorder| {
        let source = Source::Payload(recorder.operation);
        let first = recorder.note(
            kind,
            vec![vec![Piece { source, offset: 0, bytes: payload_bytes }]],
            vec![4 * values.len() as u64],
        );
        recorder.wrote(first, values)
    });
    noted.unwrap_or(Ok(()))
}

/// Notes the norm over tensors: the sums of the squares of each, block by block, and what they come to.
pub(crate) fn norm<'a>(tensors: impl Iterator<Item = Slice<'a>>, norm: f64) -> Result<(), DeviceError> {
    let noted = with(|recorder| {
        let mut all = Vec::new();
        for tensor in tensors {
            let input = recorder.input(tensor);
            let bytes = 4 * tensor.len().div_ceil(kernels::reduce::BLOCK) as u64;
            let number = recorder.note(Kind::Squares, vec![input], vec![bytes]);
            if recorder.computes {
                let mut values = Vec::with_capacity(tensor.len());
                tensor.pieces(|piece| values.extend_from_slice(piece))?;
                recorder.made(number, bytemuck::cast_slice(&block_sums(&values)))?;
            }
            all.push(vec![Piece { source: Source::Value(number), offset: 0, bytes }]);
        }
        let number = recorder.note(Kind::GlobalNorm, all, vec![8]);
        recorder.norm = Some(Piece { source: Source::Value(number), offset: 0, bytes: 8 });
        recorder.made(number, &norm.to_le_bytes())
    });
    noted.unwrap_or(Ok(()))
}

/// The sum of squares of each block. Of one block the sum is an f32, made f64.
pub(super) fn block_sums(values: &[f32]) -> Vec<f32> {
    values.chunks(kernels::reduce::BLOCK).map(|block| kernels::reduce::sum_squares(block) as f32).collect()
}

/// As [`reads`], and after it the norm that was made last.
pub(crate) fn reads_and_norm(values: &[Slice<'_>]) -> Option<Reads> {
    let mut reads = reads(values)?;
    with(|recorder| {
        recorder.unknown |= recorder.norm.is_none();
        reads.0.push(recorder.norm.into_iter().collect());
    });
    Some(reads)
}

/// Says that values are zero from now on.
pub(crate) fn cleared(values: Slice<'_>) {
    with(|recorder| recorder.place(values, Source::Zeros, 0));
}

/// Says that values are those of others from now on, which lie elsewhere: they come from where these came from.
pub(crate) fn copied(from: Slice<'_>, to: Slice<'_>) {
    with(|recorder| {
        let mut at = to.place().start;
        for Piece { source, offset, bytes } in recorder.input(from) {
            recorder.writers.write(at..at + bytes, source, offset);
            at += bytes;
        }
    });
}

/// Takes values that were changed by no op for what their last op made: how somebody who tampers would tell of it.
pub(crate) fn tampered(values: Slice<'_>) -> Result<(), DeviceError> {
    let noted = with(|recorder| match recorder.input(values).as_slice() {
        [Piece { source: Source::Value(number), offset: 0, .. }] => recorder.wrote(*number, values),
        _ => Ok(()),
    });
    noted.unwrap_or(Ok(()))
}

/// Who wrote which bytes of memory last: their end, whose they are, and from which byte of it on.
#[derive(Debug, Default)]
struct Writers(BTreeMap<u64, (u64, Source, u64)>);

impl Writers {
    fn write(&mut self, range: Range<u64>, source: Source, offset: u64) {
        if range.is_empty() {
            return;
        }
        let overlapping = self.0.range(..range.end).rev().take_while(|(_, (end, ..))| *end > range.start);
        let overlapping: Vec<_> = overlapping.map(|(start, what)| (*start, *what)).collect();
        for (start, (end, source, offset)) in overlapping {
            self.0.remove(&start);
            if start < range.start {
                self.0.insert(start, (range.start, source, offset));
            }
            if end > range.end {
                self.0.insert(range.end, (end, source, offset + (range.end - start)));
            }
        }
        self.0.insert(range.start, (range.end, source, offset));
    }

    fn read(&self, range: Range<u64>) -> Option<Input> {
        let mut pieces: Input = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let (start, (end, source, offset)) = self.0.range(..=at).next_back()?;
            let upto = (*end).min(range.end);
            if upto <= at {
                return None;
            }
            pieces.push(Piece { source: *source, offset: offset + (at - start), bytes: upto - at });
            at = upto;
        }
        Some(pieces)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_writer_counts_byte_by_byte() {
        let mut writers = Writers::default();
        writers.write(100..200, Source::State, 1000);
        writers.write(120..140, Source::Value(1), 0);
        writers.write(130..150, Source::Value(2), 0);
        let piece = |source, offset, bytes| Piece { source, offset, bytes };
        assert_eq!(
            writers.read(110..180).unwrap(),
            [
                piece(Source::State, 1010, 10),
                piece(Source::Value(1), 0, 10),
                piece(Source::Value(2), 0, 20),
                piece(Source::State, 1050, 30)
            ]
        );
        assert_eq!(writers.read(190..201), None);
        assert_eq!(writers.read(50..60), None);
        writers.write(0..1000, Source::Zeros, 0);
        assert_eq!(writers.read(100..200).unwrap(), [piece(Source::Zeros, 100, 100)]);
    }
}
