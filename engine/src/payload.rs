//! Payload block: a boundary tensor as bytes, the same for whoever computes it.
//!
//! ```text
//! offset  size  field
//!      0     4  magic "IPB1"
//!      4     1  codec: 0 f32, 1 bf16, 2 int8
//!      5     1  kind: 0 activation, 1 gradient
//!      6     2  zero
//!      8     4  rows, u32 LE: tokens of the microbatch
//!     12     4  columns, u32 LE: width of the residual stream
//!     16     -  rows one after another, each encoded on its own by `kernels::codec`
//! ```
//!
//! Rows are encoded one by one so that no scale is shared by two tokens: a later token must not change the bits of
//! an earlier one. The BLAKE3 of the whole block is the payload's digest, the one receipts bind.

use crate::tensor::Tensor;
use kernels::codec::{self, Format};
use spec::{BoundaryCodec, Run};

/// Bytes before the rows.
pub const HEADER_LEN: usize = 16;
const MAGIC: [u8; 4] = *b"IPB1";

/// What a payload carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A stage's output, on its way to the next stage.
    Activation,
    /// The gradient of a stage's input, on its way back.
    Gradient,
}

/// What the receiver expects of a payload; all of it follows from the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// The run's boundary codec.
    pub codec: BoundaryCodec,
    /// Direction of travel.
    pub kind: Kind,
    /// Tokens of a microbatch.
    pub rows: u32,
    /// Width of the residual stream.
    pub cols: u32,
}

/// Bytes that are not the payload expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Shorter than a header.
    #[error("payload: expected a header of {HEADER_LEN} bytes, found {found} bytes in all")]
    Short {
        /// Bytes found.
        found: usize,
    },
    /// A header field differs from what the run prescribes.
    #[error("payload header: {field} is {found}, this run expects {expected}; refuse the sender's block")]
    Header {
        /// The field.
        field: &'static str,
        /// Its value.
        found: u32,
        /// The value expected.
        expected: u32,
    },
    /// Wrong number of bytes for the shape.
    #[error("payload: expected {expected} bytes in all, found {found}")]
    Length {
        /// Bytes expected.
        expected: usize,
        /// Bytes found.
        found: usize,
    },
    /// A row that no encoder writes.
    #[error("payload row {row}: {source}")]
    Row {
        /// The row.
        row: usize,
        /// What is wrong with it.
        source: codec::DecodeError,
    },
}

impl Expected {
    /// What crosses a stage boundary of `run`.
    pub fn of(run: &Run, kind: Kind) -> Self {
        // A microbatch of 2^32 tokens fits no machine, and the shape is fixed by the run either way.
        let rows = run.microbatch_tokens() as u32;
        Self { codec: run.boundary, kind, rows, cols: run.model.dim }
    }

    /// Bytes of a payload of this shape, header included.
    pub fn encoded_len(&self) -> usize {
        HEADER_LEN + self.rows as usize * format(self.codec).encoded_len(self.cols as usize)
    }

    fn header(&self) -> [u8; HEADER_LEN] {
        let mut header = [0; HEADER_LEN];
        header[..4].copy_from_slice(&MAGIC);
        header[4] = self.codec as u8;
        header[5] = self.kind as u8;
        header[8..12].copy_from_slice(&self.rows.to_le_bytes());
        header[12..].copy_from_slice(&self.cols.to_le_bytes());
        header
    }
}

/// Encodes a tensor of rows x columns; `None` if it holds a NaN or an infinity, which is an outcome and not a payload.
///
/// # Panics
/// When the tensor's shape is not the one `expected` states: a bug of the caller.
pub fn encode(expected: &Expected, tensor: &Tensor) -> Option<Vec<u8>> {
    let (rows, cols) = (expected.rows as usize, expected.cols as usize);
    assert_eq!(tensor.shape(), [rows, cols], "payload::encode: tensor's shape against the payload's");
    let format = format(expected.codec);
    let mut bytes = vec![0; expected.encoded_len()];
    let (header, body) = bytes.split_at_mut(HEADER_LEN);
    header.copy_from_slice(&expected.header());
    for (x, out) in tensor.data().chunks_exact(cols).zip(body.chunks_exact_mut(format.encoded_len(cols))) {
        codec::encode(format, x, out).ok()?;
    }
    Some(bytes)
}

/// Decodes a payload into a tensor of rows x columns. Any bytes may come in; none makes it panic.
///
/// # Errors
/// [`PayloadError`] says what differs from the payload expected; a payload that carries NaN or infinity is refused.
pub fn decode(expected: &Expected, bytes: &[u8]) -> Result<Tensor, PayloadError> {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Err(PayloadError::Short { found: bytes.len() });
    };
    check_header(header, &expected.header())?;
    if bytes.len() != expected.encoded_len() {
        return Err(PayloadError::Length { expected: expected.encoded_len(), found: bytes.len() });
    }
    let (rows, cols) = (expected.rows as usize, expected.cols as usize);
    let format = format(expected.codec);
    let mut data = vec![0.0; rows * cols];
    let encoded_rows = body.chunks_exact(format.encoded_len(cols));
    for (row, (y, encoded)) in data.chunks_exact_mut(cols).zip(encoded_rows).enumerate() {
        codec::decode(format, encoded, y).map_err(|source| PayloadError::Row { row, source })?;
    }
    Ok(Tensor::new(&[rows, cols], data))
}

fn check_header(found: &[u8; HEADER_LEN], expected: &[u8; HEADER_LEN]) -> Result<(), PayloadError> {
    let fields = [
        ("magic", 0..4),
        ("codec", 4..5),
        ("kind", 5..6),
        ("zero", 6..8),
        ("rows", 8..12),
        ("columns", 12..16),
    ];
    for (field, range) in fields {
        if found[range.clone()] != expected[range.clone()] {
            let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |n, &byte| n << 8 | u32::from(byte));
            let (found, expected) = (number(&found[range.clone()]), number(&expected[range]));
            return Err(PayloadError::Header { field, found, expected });
        }
    }
    Ok(())
}

fn format(codec: BoundaryCodec) -> Format {
    match codec {
        BoundaryCodec::F32 => Format::F32,
        BoundaryCodec::Bf16 => Format::Bf16,
        BoundaryCodec::Int8 => Format::Int8,
    }
}
