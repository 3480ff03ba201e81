//! A tile opened by whoever has everything, and checked by whoever has digests alone.

use super::desk::Desk;
use super::program::{Kind, Op, Program, Source};
use super::slices::{self, Sparse};
use super::tile::{Grid, Tile};
use super::{Window, compute};
use crate::payload::HEADER_LEN;
use spec::{BoundaryCodec, Digest};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// A tile of an output, and what opens it: one proof for each source, in order: the training shard first, if the op reads
/// tokens, then what else the tile is computed from, and the output itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// The output, by its number among all.
    pub value: u32,
    /// The tile, by its number.
    pub tile: u32,
    /// What opens the sources; see [`slices`].
    pub proofs: Vec<Vec<u8>>,
}

/// Why an opening shows nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No such output or tile.
    #[error("the window has no output {value} with a tile {tile}")]
    NoTile {
        /// The output.
        value: u32,
        /// The tile.
        tile: u32,
    },
    /// A source that is not there, or not of the length that it has.
    #[error("{0} is not there, or of another length")]
    Missing(String),
    /// Another number of proofs.
    #[error("expected {expected} proofs, found {found}")]
    Proofs {
        /// As many as there are sources.
        expected: usize,
        /// As many as there are.
        found: usize,
    },
    /// A proof that does not open against its digest.
    #[error("{0} does not open against the digest that was signed")]
    Proof(String),
    /// What was opened is nothing that an honest engine computes with.
    #[error("what was opened of {0} cannot be computed with")]
    Nonsense(&'static str),
}

/// The first value of a tile that is not what its op gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What the op is called.
    pub op: &'static str,
    /// Its place among the ops of the window.
    pub place: usize,
    /// The operation of the window.
    pub operation: usize,
    /// Which of the op's outputs.
    pub output: usize,
    /// Row and column of the value in the output.
    pub at: (u64, u64),
    /// What was signed, and what the op gives.
    pub claimed: Element,
    /// What the op gives.
    pub found: Element,
}

/// One value of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// An f32, by its bits.
    Float(u32),
    /// A byte of a payload or of a file's head.
    Byte(u8),
    /// A mean of losses, in units of 2^-32 nats.
    Loss(i64),
    /// A norm, by its bits.
    Norm(u64),
}

impl std::fmt::Display for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Float(bits) => write!(f, "{:e} (bits {bits:08x})", f32::from_bits(*bits)),
            Self::Byte(byte) => write!(f, "byte {byte:02x}"),
            Self::Loss(loss) => write!(f, "{loss} x 2^-32 nats"),
            Self::Norm(bits) => write!(f, "{:e} (bits {bits:016x})", f64::from_bits(*bits)),
        }
    }
}

impl Element {
    /// How many numbers of their kind lie between two, the second included; of numbers that have an order.
    pub fn distance(self, other: Self) -> Option<u64> {
        // Bits of floats as integers in the floats' order.
        let single =
            |bits: u32| if bits >> 31 == 0 { i64::from(bits) } else { -i64::from(bits & 0x7FFF_FFFF) };
        let double =
            |bits: u64| if bits >> 63 == 0 { bits as i128 } else { -((bits & (u64::MAX >> 1)) as i128) };
        match (self, other) {
            (Self::Float(a), Self::Float(b)) => Some(single(a).abs_diff(single(b))),
            (Self::Norm(a), Self::Norm(b)) => u64::try_from(double(a).abs_diff(double(b))).ok(),
            (Self::Loss(a), Self::Loss(b)) => Some(a.abs_diff(b)),
            _ => None,
        }
    }
}

/// The outputs whose digests are needed to check output `value`: itself and what its op reads.
pub fn leaves(program: &Program, value: u32) -> BTreeSet<u32> {
    let op = program.maker(value).map(|(at, _)| &program.ops[at]);
    let pieces = op.into_iter().flat_map(|op| op.inputs.iter().flatten());
    let read =
        pieces.filter_map(|piece| if let Source::Value(value) = piece.source { Some(value) } else { None });
    read.chain([value]).collect()
}

/// The tile in which a signed output first differs from the honest one; `None` where nothing differs.
pub fn first_tile(program: &Program, value: u32, signed: &[u8], honest: &[u8]) -> Option<u32> {
    let (place, output) = program.maker(value)?;
    let at = signed.iter().zip(honest).position(|(signed, honest)| signed != honest)?;
    u32::try_from(Grid::of(&program.ops[place], output).tile_at(at as u64)).ok()
}

/// Opens a tile of output `value`. `source` has the bytes of what the op reads, and for the output itself those that were
/// signed.
///
/// # Errors
/// Something is not there, or there is no such tile.
pub fn open<'a>(
    window: &Window<'_>,
    program: &Program,
    (value, tile): (u32, u32),
    source: impl Fn(Source) -> Option<&'a [u8]>,
) -> Result<Opening, Refused> {
    let mut proofs = Vec::new();
    let mut give = |of: Source, wanted: &[Range<u64>]| {
        let bytes = source(of).filter(|bytes| bytes.len() as u64 == length(window, program, of));
        let bytes = bytes.ok_or_else(|| missing(of))?;
        proofs.push(slices::open(bytes, wanted));
        Ok(Sparse::of(bytes, wanted))
    };
    laid(window, program, value, tile, &mut give)?;
    Ok(Opening { value, tile, proofs })
}

/// Computes an opened tile and holds it against what was signed: the first difference, or `None` if there is none. `digest`
/// has what was signed of each source.
///
/// # Errors
/// The opening shows nothing.
pub fn check(
    window: &Window<'_>,
    program: &Program,
    opening: &Opening,
    digest: impl Fn(Source) -> Option<Digest>,
) -> Result<Option<Difference>, Refused> {
    let mut given = 0;
    let mut give = |of: Source, wanted: &[Range<u64>]| {
        given += 1;
        let found = opening.proofs.len();
        let proof = opening.proofs.get(given - 1).ok_or(Refused::Proofs { expected: given, found })?;
        let digest = digest(of).ok_or_else(|| missing(of))?;
        let opened = slices::check(&digest, length(window, program, of), wanted, proof);
        opened.ok_or_else(|| Refused::Proof(name(of)))
    };
    let (mut desk, tile, output) = laid(window, program, opening.value, opening.tile, &mut give)?;
    if given != opening.proofs.len() {
        return Err(Refused::Proofs { expected: given, found: opening.proofs.len() });
    }
    let grid = Grid::of(desk.op, output);
    let op = desk.op;
    let nonsense = Refused::Nonsense(op.kind.name());
    let found = compute::tile(&mut desk, output, &tile).filter(|_| !desk.wrong).ok_or(nonsense.clone())?;
    let ranges = grid.bytes(&tile);
    let signed = &desk.known[&Source::Value(opening.value)];
    let mut rest = &found[..];
    for range in ranges {
        let signed = signed.get(range.clone()).ok_or(nonsense.clone())?;
        let (found, after) = rest.split_at_checked(signed.len()).ok_or(nonsense.clone())?;
        rest = after;
        if let Some(at) = signed.iter().zip(found).position(|(signed, found)| signed != found) {
            let unit = unit(op, range.start + at as u64);
            let start = at / unit * unit;
            let element = |bytes: &[u8]| element(op, &bytes[start..(start + unit).min(bytes.len())]);
            let offset =
                (range.start + start as u64).saturating_sub(grid.head as u64) / grid.element.max(1) as u64;
            let (place, _) = program.maker(opening.value).unwrap_or_default();
            return Ok(Some(Difference {
                op: op.kind.name(),
                place,
                operation: op.operation as usize,
                output,
                at: (offset / grid.cols.max(1) as u64, offset % grid.cols.max(1) as u64),
                claimed: element(signed),
                found: element(found),
            }));
        }
    }
    Ok(None)
}

/// How a source is opened: what is there of it, once it is known what is wanted.
type Give<'a> = dyn FnMut(Source, &[Range<u64>]) -> Result<Sparse, Refused> + 'a;

/// Lays everything on the desk that a tile needs, the signed output too.
fn laid<'a>(
    window: &'a Window<'a>,
    program: &'a Program,
    value: u32,
    tile: u32,
    give: &mut Give<'_>,
) -> Result<(Desk<'a>, Tile, usize), Refused> {
    let none = Refused::NoTile { value, tile };
    let (place, output) = program.maker(value).ok_or(none.clone())?;
    let op = &program.ops[place];
    let grid = Grid::of(op, output);
    let tile = grid.tile(tile as usize).ok_or(none)?;
    let mut desk = Desk::new(window, op);
    // What a table is asked for depends on tokens, so they come first.
    for round in 0..2 {
        compute::tile(&mut desk, output, &tile);
        let mut asked = std::mem::take(&mut desk.asked);
        if round == 0
            && let Some(wanted) = asked.remove(&Source::Shard)
        {
            desk.known.insert(Source::Shard, give(Source::Shard, &slices::merged(wanted))?);
            continue;
        }
        asked.insert(Source::Value(value), grid.bytes(&tile));
        for (source, wanted) in asked {
            desk.known.insert(source, give(source, &slices::merged(wanted))?);
        }
        break;
    }
    if desk.wrong {
        return Err(Refused::Nonsense(op.kind.name()));
    }
    Ok((desk, tile, output))
}

/// Bytes of a source.
fn length(window: &Window<'_>, program: &Program, source: Source) -> u64 {
    match source {
        Source::Shard => window.run.data.shard_bytes(window.run.data.train_tokens),
        Source::Zeros => 0,
        Source::State => window.state.1,
        Source::Payload(operation) => {
            let pieces = program.ops.iter().flat_map(|op| op.inputs.iter().flatten());
            pieces
                .filter(|piece| piece.source == Source::Payload(operation))
                .map(|piece| piece.bytes)
                .max()
                .unwrap_or(0)
        }
        Source::Value(value) => {
            program.maker(value).map_or(0, |(at, output)| program.ops[at].outputs[output])
        }
    }
}

/// Bytes of the value that byte `at` of an output belongs to.
fn unit(op: &Op, at: u64) -> usize {
    match &op.kind {
        Kind::Encode(expected) if at < HEADER_LEN as u64 || expected.codec != BoundaryCodec::F32 => 1,
        Kind::State { header } if at < header.len() as u64 => 1,
        Kind::Mean | Kind::GlobalNorm => 8,
        _ => 4,
    }
}

fn element(op: &Op, bytes: &[u8]) -> Element {
    match (&op.kind, bytes) {
        (Kind::Mean, &[a, b, c, d, e, f, g, h]) => {
            Element::Loss(i64::from_le_bytes([a, b, c, d, e, f, g, h]))
        }
        (Kind::GlobalNorm, &[a, b, c, d, e, f, g, h]) => {
            Element::Norm(u64::from_le_bytes([a, b, c, d, e, f, g, h]))
        }
        (_, &[a, b, c, d]) => Element::Float(u32::from_le_bytes([a, b, c, d])),
        (_, bytes) => Element::Byte(bytes.first().copied().unwrap_or(0)),
    }
}

fn missing(source: Source) -> Refused {
    Refused::Missing(name(source))
}

fn name(source: Source) -> String {
    match source {
        Source::Shard => "the training shard".into(),
        Source::Zeros => "nothing".into(),
        Source::State => "the state before the window".into(),
        Source::Payload(operation) => format!("the payload of operation {operation}"),
        Source::Value(value) => format!("output {value}"),
    }
}

/// All outputs that were kept, and everything else by name: what [`open`] reads in one process.
#[derive(Debug, Default)]
pub struct Sources<'a> {
    /// The state file before the window.
    pub state: &'a [u8],
    /// The payload of each operation.
    pub inputs: &'a [&'a [u8]],
    /// The file of the training shard.
    pub shard: &'a [u8],
    /// Outputs.
    pub values: BTreeMap<u32, &'a [u8]>,
}

impl<'a> Sources<'a> {
    /// The bytes of one.
    pub fn get(&self, source: Source) -> Option<&'a [u8]> {
        match source {
            Source::Shard => Some(self.shard),
            Source::Zeros => None,
            Source::State => Some(self.state),
            Source::Payload(operation) => self.inputs.get(operation as usize).copied(),
            Source::Value(value) => self.values.get(&value).copied(),
        }
    }
}
