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

use crate::ops::Status;
use crate::tensor::{Slice, Tensor};
use crate::trace::{Kind as Op, record};
use kernels::codec::{self, Format};
use kernels::device::{Arriving, Buffer, CudaDevice, Device, DeviceError, Leaving};
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
    /// The device that should hold the tensor.
    #[error(transparent)]
    Device(#[from] DeviceError),
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

    /// The payload of nothing but +0.
    pub(crate) fn of_zeros(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.encoded_len()];
        bytes[..HEADER_LEN].copy_from_slice(&self.header());
        bytes
    }

    pub(crate) fn header(&self) -> [u8; HEADER_LEN] {
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
/// # Errors
/// The device that holds the tensor has no memory left, or is lost.
///
/// # Panics
/// When the tensor's shape is not the one `expected` states: a bug of the caller.
pub fn encode(expected: &Expected, tensor: &Tensor) -> Result<Option<Vec<u8>>, DeviceError> {
    send(expected, tensor)?.finish()
}

/// A payload on its way out of a device, which may compute on meanwhile.
pub(crate) struct Outgoing {
    expected: Expected,
    reads: Option<record::Reads>,
    bytes: Vec<u8>,
    source: Encoded,
}

enum Encoded {
    /// Encoded on the host, from values that were all finite or not.
    Host { whole: bool },
    /// Encoded on a device, so that only the bytes cross the bus.
    Device { body: Leaving<u8>, status: Status },
}

/// Begins to encode; see [`encode`].
pub(crate) fn send(expected: &Expected, tensor: &Tensor) -> Result<Outgoing, DeviceError> {
    let (rows, cols) = (expected.rows as usize, expected.cols as usize);
    assert_eq!(tensor.shape(), [rows, cols], "payload::encode: tensor's shape against the payload's");
    let reads = record::reads(&[tensor.values()]);
    let format = format(expected.codec);
    let mut bytes = vec![0; expected.encoded_len()];
    let (header, body) = bytes.split_at_mut(HEADER_LEN);
    header.copy_from_slice(&expected.header());
    let source = match tensor.values() {
        Slice::Host(values) => {
            let mut rows = values.chunks_exact(cols).zip(body.chunks_exact_mut(format.encoded_len(cols)));
            Encoded::Host { whole: rows.all(|(x, out)| codec::encode(format, x, out).is_ok()) }
        }
        Slice::Cuda(device, values) => {
            let mut encoded = device.scratch(body.len())?;
            let mut status = Status::new(device)?;
            let word = &mut status.word();
            codec::cuda::encode_rows(device, format, cols, &values, &mut encoded.view_mut(), word)?;
            Encoded::Device { body: device.bring(encoded)?, status }
        }
    };
    Ok(Outgoing { expected: *expected, reads, bytes, source })
}

impl Outgoing {
    /// The payload, once it is there; `None` if the tensor held a NaN or an infinity.
    pub fn finish(mut self) -> Result<Option<Vec<u8>>, DeviceError> {
        let whole = match self.source {
            Encoded::Host { whole } => whole,
            Encoded::Device { body, status } => {
                body.finish(&mut self.bytes[HEADER_LEN..])?;
                status.fault()?.is_none()
            }
        };
        record::made(self.reads, Op::Encode(self.expected), &self.bytes)?;
        Ok(whole.then_some(self.bytes))
    }
}

/// Decodes a payload into a tensor of rows x columns on `device`. Any bytes may come in; none makes it panic.
///
/// # Errors
/// [`PayloadError`] says what differs from the payload expected; a payload that carries NaN or infinity is refused.
pub fn decode(expected: &Expected, bytes: &[u8], device: &Device) -> Result<Tensor, PayloadError> {
    receive(expected, bytes, device)?.decode()
}

/// A payload of the right size on its way to where it is decoded.
pub(crate) struct Incoming<'a> {
    expected: Expected,
    body: &'a [u8],
    /// On its way to a device, which may compute on meanwhile.
    on_device: Option<(CudaDevice, Arriving<u8>)>,
}

/// Begins to decode; see [`decode`].
pub(crate) fn receive<'a>(
    expected: &Expected,
    bytes: &'a [u8],
    device: &Device,
) -> Result<Incoming<'a>, PayloadError> {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_LEN>() else {
        return Err(PayloadError::Short { found: bytes.len() });
    };
    check_header(header, &expected.header())?;
    if bytes.len() != expected.encoded_len() {
        return Err(PayloadError::Length { expected: expected.encoded_len(), found: bytes.len() });
    }
    let on_device = match device {
        Device::Cpu => None,
        Device::Cuda(device) => Some((device.clone(), device.send(body)?)),
    };
    Ok(Incoming { expected: *expected, body, on_device })
}

impl Incoming<'_> {
    /// The tensor.
    pub fn decode(self) -> Result<Tensor, PayloadError> {
        let expected = self.expected;
        let tensor = self.decode_body()?;
        record::decoded(Op::Decode(expected), expected.encoded_len() as u64, tensor.values())?;
        Ok(tensor)
    }

    fn decode_body(self) -> Result<Tensor, PayloadError> {
        let (rows, cols) = (self.expected.rows as usize, self.expected.cols as usize);
        let format = format(self.expected.codec);
        if let Some((device, body)) = self.on_device
            && let Some(tensor) = decode_on(&device, format, &[rows, cols], body.land()?)?
        {
            return Ok(tensor);
        }
        // Of bytes that a device refuses, the host names the fault.
        let mut tensor = Tensor::unwritten_on_host(&[rows, cols]);
        let encoded_rows = self.body.chunks_exact(format.encoded_len(cols));
        for (row, (y, encoded)) in tensor.data_mut().chunks_exact_mut(cols).zip(encoded_rows).enumerate() {
            codec::decode(format, encoded, y).map_err(|source| PayloadError::Row { row, source })?;
        }
        Ok(tensor)
    }
}

/// Decodes on the device; nothing if there is a row that no encoder writes.
fn decode_on(
    device: &CudaDevice,
    format: Format,
    shape: &[usize; 2],
    encoded: Buffer<u8>,
) -> Result<Option<Tensor>, DeviceError> {
    let mut status = Status::new(device)?;
    let mut tensor = Tensor::unwritten(&Device::Cuda(device.clone()), shape)?;
    let (encoded, mut y) = (encoded.view(), tensor.cuda_mut());
    codec::cuda::decode_rows(device, format, shape[1], &encoded, &mut y, &mut status.word())?;
    Ok(status.fault()?.is_none().then_some(tensor))
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

/// How the kernels call a codec.
pub(crate) fn format(codec: BoundaryCodec) -> Format {
    match codec {
        BoundaryCodec::F32 => Format::F32,
        BoundaryCodec::Bf16 => Format::Bf16,
        BoundaryCodec::Int8 => Format::Int8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(expected: &Expected, tensor: &Tensor) -> Option<Vec<u8>> {
        super::encode(expected, tensor).unwrap()
    }

    fn decode(expected: &Expected, bytes: &[u8]) -> Result<Tensor, PayloadError> {
        super::decode(expected, bytes, &Device::Cpu)
    }

    const CODECS: [BoundaryCodec; 3] = [BoundaryCodec::F32, BoundaryCodec::Bf16, BoundaryCodec::Int8];

    fn expected(codec: BoundaryCodec) -> Expected {
        Expected { codec, kind: Kind::Activation, rows: 3, cols: 150 }
    }

    fn tensor() -> Tensor {
        Tensor::new(&[3, 150], (0..450).map(|i| (i as f32 - 200.0) * 0.37).collect())
    }

    #[test]
    fn the_header_is_frozen() {
        let expected = Expected { kind: Kind::Gradient, ..expected(BoundaryCodec::Int8) };
        let bytes = encode(&expected, &tensor()).unwrap();
        assert_eq!(bytes[..16], *b"IPB1\x02\x01\0\0\x03\0\0\0\x96\0\0\0");
        assert_eq!(bytes.len(), 16 + 3 * (2 + 150));
    }

    #[test]
    fn what_was_decoded_encodes_to_the_same_bytes() {
        for codec in CODECS {
            let bytes = encode(&expected(codec), &tensor()).unwrap();
            let decoded = decode(&expected(codec), &bytes).unwrap();
            assert_eq!(encode(&expected(codec), &decoded).unwrap(), bytes, "{codec:?}");
            let error =
                decoded.data().iter().zip(tensor().data()).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(
                error <= if codec == BoundaryCodec::F32 { 0.0 } else { 0.6 },
                "{codec:?}: off by {error}"
            );
        }
    }

    #[test]
    fn a_later_row_does_not_change_the_bytes_of_an_earlier_one() {
        for codec in CODECS {
            let expected = expected(codec);
            let mut changed = tensor();
            changed.data_mut()[300..].iter_mut().for_each(|x| *x *= 1000.0);
            let (a, b) = (encode(&expected, &tensor()).unwrap(), encode(&expected, &changed).unwrap());
            let rows_0_and_1 = HEADER_LEN + 2 * (expected.encoded_len() - HEADER_LEN) / 3;
            assert_eq!(a[..rows_0_and_1], b[..rows_0_and_1], "{codec:?}");
            assert_ne!(a, b);
        }
    }

    #[test]
    fn another_shape_codec_kind_or_a_nan_is_refused_by_name() {
        let expected = expected(BoundaryCodec::F32);
        let bytes = encode(&expected, &tensor()).unwrap();
        let refusal = |expected: &Expected, bytes: &[u8]| decode(expected, bytes).unwrap_err().to_string();
        let rows = refusal(&Expected { rows: 4, ..expected }, &bytes);
        assert!(rows.starts_with("payload header: rows is 3, this run expects 4"), "{rows}");
        let kind = refusal(&Expected { kind: Kind::Gradient, ..expected }, &bytes);
        assert!(kind.starts_with("payload header: kind is 0, this run expects 1"), "{kind}");
        assert_eq!(
            refusal(&expected, &bytes[..9]),
            "payload: expected a header of 16 bytes, found 9 bytes in all"
        );
        assert_eq!(refusal(&expected, &bytes[..99]), "payload: expected 1816 bytes in all, found 99");

        let mut poisoned = tensor();
        poisoned.data_mut()[151] = f32::NAN;
        assert_eq!(encode(&expected, &poisoned), None);
        let mut nan = bytes;
        nan[HEADER_LEN + 4 * 151..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
        assert!(matches!(decode(&expected, &nan), Err(PayloadError::Row { row: 1, .. })));
    }

    proptest! {
        #[test]
        fn decoding_any_bytes_never_panics(
            codec in prop::sample::select(CODECS.to_vec()),
            noise in prop::collection::vec(any::<u8>(), 0..2000),
            at in 0usize..2000,
            byte: u8,
        ) {
            let expected = expected(codec);
            prop_assert!(decode(&expected, &noise).is_err());
            // Right header and length, then noise: what is accepted must be what an encoder writes.
            let mut block = expected.header().to_vec();
            block.extend(noise.iter().copied().cycle().take(expected.encoded_len() - HEADER_LEN));
            block.resize(expected.encoded_len(), 0);
            if let Ok(tensor) = decode(&expected, &block) {
                prop_assert_eq!(encode(&expected, &tensor), Some(block));
            }
            let mut damaged = encode(&expected, &tensor()).unwrap();
            let at = at % damaged.len();
            damaged[at] = byte;
            if let Ok(tensor) = decode(&expected, &damaged) {
                prop_assert_eq!(encode(&expected, &tensor), Some(damaged));
            }
        }
    }
}
