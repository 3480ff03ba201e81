//! Launches the lossy codecs on a CUDA device.
//!
//! A kernel cannot return an error, so each takes a status word in device memory, [`NO_FAULT`] as long as nothing was
//! wrong. A kernel lowers it to where the fault stands: an encoder to the first element without an encoding, a decoder
//! to the first block (int8) or element that no encoder writes. Nothing raises it again but its owner; while it is
//! lowered, [`encode_with_feedback`] leaves everything as it is.

use super::{BLOCK, Format};
use crate::common::shape::expect_len;
use crate::device::{CudaDevice, DeviceError, Grid, Source, View, ViewMut, count32, shared};

/// The room's kernels.
pub const SOURCE: Source =
    Source { name: "codec", pieces: &[shared::VECTOR, shared::BLOCK, include_str!("codec.cu")] };

/// What a status word holds as long as nothing was wrong.
pub const NO_FAULT: u32 = u32::MAX;

/// Elements that a thread takes at a time.
const ELEMENTS: usize = 4;

/// Queues the encoding of `x` to `bytes`, which holds `format.encoded_len(x.len())`. If `status` is lowered, `bytes` is
/// unspecified.
///
/// # Errors
/// As [`CudaDevice::launch`] and [`crate::device::Launch::run`]; [`DeviceError::TooLarge`].
pub fn encode(
    device: &CudaDevice,
    format: Format,
    x: &View<'_, f32>,
    bytes: &mut ViewMut<'_, u8>,
    status: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    encode_on(device, grid(device, x.len()), format, x, bytes, status)
}

/// As [`encode`], on a chosen grid.
///
/// # Errors
/// As [`encode`].
pub fn encode_on(
    device: &CudaDevice,
    grid: Grid,
    format: Format,
    x: &View<'_, f32>,
    bytes: &mut ViewMut<'_, u8>,
    status: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    encode_rows_on(device, grid, format, x.len(), x, bytes, status)
}

/// Queues the encoding of rows of `cols` elements, each on its own as [`super::encode`] does it, one after another.
///
/// # Errors
/// As [`encode`].
pub fn encode_rows(
    device: &CudaDevice,
    format: Format,
    cols: usize,
    x: &View<'_, f32>,
    bytes: &mut ViewMut<'_, u8>,
    status: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    encode_rows_on(device, rows_grid(device, cols, x.len()), format, cols, x, bytes, status)
}

/// As [`encode_rows`], on a chosen grid.
///
/// # Errors
/// As [`encode`].
pub fn encode_rows_on(
    device: &CudaDevice,
    grid: Grid,
    format: Format,
    cols: usize,
    x: &View<'_, f32>,
    bytes: &mut ViewMut<'_, u8>,
    status: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    let Some(rows) = Rows::of("codec::cuda::encode", format, cols, x.len(), bytes.len(), status.len())?
    else {
        return Ok(());
    };
    let entry = match format {
        Format::F32 => "codec_encode_f32",
        Format::Bf16 => "codec_encode_bf16",
        Format::Int8 => "codec_encode_int8",
    };
    rows.run(device, grid, entry, x, bytes, status)
}

/// Queues the encoding of `v = x + residual` and leaves in `residual` what the encoding lost. If `status` is lowered
/// before or by this, `residual` is as before and `bytes` is unspecified.
///
/// # Errors
/// As [`encode`].
pub fn encode_with_feedback(
    device: &CudaDevice,
    format: Format,
    x: &View<'_, f32>,
    residual: &mut ViewMut<'_, f32>,
    bytes: &mut ViewMut<'_, u8>,
    status: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    encode_with_feedback_on(device, grid(device, x.len()), format, x, residual, bytes, status)
}

/// As [`encode_with_feedback`], on a chosen grid.
///
/// # Errors
/// As [`encode`].
pub fn encode_with_feedback_on(
    device: &CudaDevice,
    grid: Grid,
    format: Format,
    x: &View<'_, f32>,
    residual: &mut ViewMut<'_, f32>,
    bytes: &mut ViewMut<'_, u8>,
    status: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    let op = "codec::cuda::encode_with_feedback";
    let count = check(op, format, x.len(), bytes.len(), status.len())?;
    expect_len(op, "residual", residual.len(), x.len());
    if count == 0 {
        return Ok(());
    }
    let before = residual.slice(..);
    let launch = device.launch(&SOURCE, "codec_check")?.read(x).read(&before).write(status).u32(count);
    // SAFETY: the kernel strides over elements below `count`, and lowers one word.
    unsafe { launch.u32(u32::from(format == Format::Bf16)).run(grid) }?;
    let entry = match format {
        Format::F32 => "codec_feedback_f32",
        Format::Bf16 => "codec_feedback_bf16",
        Format::Int8 => "codec_feedback_int8",
    };
    let launch = device.launch(&SOURCE, entry)?.read(x).write(residual).write(bytes).write(status);
    // SAFETY: the kernel strides over elements below `count` and their bytes, and reads one word.
    unsafe { launch.u32(count).run(grid) }
}

/// Queues the decoding of `bytes` to `y`. If `status` is lowered, `y` is unspecified; [`super::decode`] of the same
/// bytes names the fault.
///
/// # Errors
/// As [`encode`].
pub fn decode(
    device: &CudaDevice,
    format: Format,
    bytes: &View<'_, u8>,
    y: &mut ViewMut<'_, f32>,
    status: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    decode_on(device, grid(device, y.len()), format, bytes, y, status)
}

/// As [`decode`], on a chosen grid.
///
/// # Errors
/// As [`encode`].
pub fn decode_on(
    device: &CudaDevice,
    grid: Grid,
    format: Format,
    bytes: &View<'_, u8>,
    y: &mut ViewMut<'_, f32>,
    status: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    decode_rows_on(device, grid, format, y.len(), bytes, y, status)
}

/// Queues the decoding of what [`encode_rows`] writes.
///
/// # Errors
/// As [`encode`].
pub fn decode_rows(
    device: &CudaDevice,
    format: Format,
    cols: usize,
    bytes: &View<'_, u8>,
    y: &mut ViewMut<'_, f32>,
    status: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    decode_rows_on(device, rows_grid(device, cols, y.len()), format, cols, bytes, y, status)
}

/// As [`decode_rows`], on a chosen grid.
///
/// # Errors
/// As [`encode`].
pub fn decode_rows_on(
    device: &CudaDevice,
    grid: Grid,
    format: Format,
    cols: usize,
    bytes: &View<'_, u8>,
    y: &mut ViewMut<'_, f32>,
    status: &mut ViewMut<'_, u32>,
) -> Result<(), DeviceError> {
    let Some(rows) = Rows::of("codec::cuda::decode", format, cols, y.len(), bytes.len(), status.len())?
    else {
        return Ok(());
    };
    let entry = match format {
        Format::F32 => "codec_decode_f32",
        Format::Bf16 => "codec_decode_bf16",
        Format::Int8 => "codec_decode_int8",
    };
    rows.run(device, grid, entry, bytes, y, status)
}

/// Rows that are coded one by one.
struct Rows {
    format: Format,
    rows: u32,
    cols: u32,
    count: u32,
}

impl Rows {
    /// None where there is nothing to code.
    fn of(
        op: &'static str,
        format: Format,
        cols: usize,
        count: usize,
        bytes: usize,
        status: usize,
    ) -> Result<Option<Self>, DeviceError> {
        if count == 0 {
            return Ok(None);
        }
        assert!(cols > 0 && count.is_multiple_of(cols), "{op}: {count} elements are no rows of {cols}");
        let rows = count / cols;
        expect_len(op, "bytes", bytes, rows * format.encoded_len(cols));
        expect_len(op, "status", status, 1);
        let count = count32(op, "elements", count)?;
        let (rows, cols) = (count32(op, "rows", rows)?, count32(op, "columns", cols)?);
        Ok(Some(Self { format, rows, cols, count }))
    }

    /// Queues `entry`, which codes `from` to `to`.
    fn run<From, To>(
        &self,
        device: &CudaDevice,
        grid: Grid,
        entry: &'static str,
        from: &View<'_, From>,
        to: &mut ViewMut<'_, To>,
        status: &mut ViewMut<'_, u32>,
    ) -> Result<(), DeviceError> {
        let launch = device.launch(&SOURCE, entry)?.read(from).write(to).write(status);
        let launch = match self.format {
            Format::Int8 => launch.u32(self.cols).u32(self.rows),
            // Formats without blocks know no rows.
            Format::F32 | Format::Bf16 => launch.u32(self.count),
        };
        // SAFETY: the kernel strides over elements of rows that the views have, and their bytes, and lowers one word.
        unsafe { launch.run(grid) }
    }
}

/// A warp for each block of 128 of each row.
fn rows_grid(device: &CudaDevice, cols: usize, count: usize) -> Grid {
    Grid::striding(device, count.div_ceil(cols.max(1)) * cols.next_multiple_of(BLOCK) / ELEMENTS)
}

/// A warp for each block of 128.
fn grid(device: &CudaDevice, count: usize) -> Grid {
    Grid::striding(device, count.next_multiple_of(BLOCK) / ELEMENTS)
}

/// The number of elements, after a look at the sizes.
fn check(
    op: &'static str,
    format: Format,
    count: usize,
    bytes: usize,
    status: usize,
) -> Result<u32, DeviceError> {
    expect_len(op, "bytes", bytes, format.encoded_len(count));
    expect_len(op, "status", status, 1);
    count32(op, "elements", count)
}
