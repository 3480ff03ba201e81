//! What the optimizer and the fold do with a stage's flat arrays.

use super::Status;
use crate::model::Layout;
use crate::tensor::{Slice, SliceMut};
use crate::trace::{Kind, record};
use kernels::adamw::{self as step, Constants};
use kernels::device::DeviceError;
use kernels::reduce;
use rayon::prelude::*;

/// Values of one piece of work when a pass over an array is shared among threads; elementwise, so any cut gives the same
/// bits.
const PIECE: usize = 1 << 16;

/// Multiplies all gradients by `factor`.
///
/// # Errors
/// The device has no memory left, or is lost; likewise below.
pub fn scale(mut gradients: SliceMut<'_>, factor: f32) -> Result<(), DeviceError> {
    let reads = record::reads(&[gradients.as_slice()]);
    let done = match &mut gradients {
        SliceMut::Host(gradients) => {
            reduce::scale(gradients, factor);
            Ok(())
        }
        SliceMut::Cuda(device, gradients) => reduce::cuda::scale(device, gradients, factor),
    };
    record::wrote(reads, done, Kind::Scale { factor }, &[gradients.as_slice()])
}

/// The norm over all tensors of `layout`.
///
/// # Errors
/// As [`scale`].
pub fn norm(layout: &Layout, gradients: Slice<'_>) -> Result<f64, DeviceError> {
    let norm = match gradients {
        Slice::Host(gradients) => {
            let of =
                layout.entries().iter().map(|entry| reduce::sum_squares(&gradients[entry.range.clone()]));
            reduce::global_norm(of)
        }
        // Where nothing is computed there is no norm to read.
        Slice::Cuda(..) if record::imagines() => 0.0,
        Slice::Cuda(..) => reduce::global_norm(squares(layout, gradients)?),
    };
    record::norm(layout.entries().iter().map(|entry| gradients.range(entry.range.clone())), norm)?;
    Ok(norm)
}

/// The sums of squares of the tensors of `layout`, in its order.
///
/// # Errors
/// As [`scale`].
pub fn squares(layout: &Layout, gradients: Slice<'_>) -> Result<Vec<f64>, DeviceError> {
    let entries = layout.entries();
    match gradients {
        Slice::Host(gradients) => {
            let of = entries.par_iter().map(|entry| reduce::sum_squares(&gradients[entry.range.clone()]));
            Ok(of.collect())
        }
        Slice::Cuda(device, gradients) => {
            let longest = entries.iter().map(|entry| entry.range.len()).max().unwrap_or(0);
            let mut workspace = device.scratch(reduce::cuda::workspace_len(longest))?;
            let mut sums = device.scratch(entries.len())?;
            for (place, entry) in entries.iter().enumerate() {
                let (of_tensor, mut sum) =
                    (gradients.slice(entry.range.clone()), sums.slice_mut(place..place + 1));
                reduce::cuda::sum_squares(device, &of_tensor, &mut sum, &mut workspace.view_mut())?;
            }
            device.download(&sums.view())
        }
    }
}

/// The first value whose magnitude is not below `bound`; infinity finds what is not finite.
///
/// # Errors
/// As [`scale`].
pub fn first_beyond(values: Slice<'_>, bound: f32) -> Result<Option<usize>, DeviceError> {
    match values {
        Slice::Host(values) => Ok(reduce::first_beyond(values, bound)),
        Slice::Cuda(device, values) => {
            let mut status = Status::new(device)?;
            reduce::cuda::first_beyond(device, &values, bound, &mut status.word())?;
            Ok(status.fault()?.map(|place| place as usize))
        }
    }
}

/// One step of AdamW on weights `p` and moments `m`, `v`.
///
/// # Errors
/// As [`scale`].
pub fn adamw(
    constants: Constants,
    g: Slice<'_>,
    mut p: SliceMut<'_>,
    mut m: SliceMut<'_>,
    mut v: SliceMut<'_>,
) -> Result<(), DeviceError> {
    let reads = record::reads_and_norm(&[g, p.as_slice(), m.as_slice(), v.as_slice()]);
    let done = match &mut p {
        SliceMut::Host(p) => {
            step::step(&step::Step { constants, g: g.host() }, p, m.host(), v.host());
            Ok(())
        }
        SliceMut::Cuda(device, p) => {
            let args = step::cuda::Step { constants, g: &g.cuda(), clip: None };
            step::cuda::step(device, &args, p, &mut m.cuda(), &mut v.cuda())
        }
    };
    record::wrote(reads, done, Kind::AdamW(constants), &[p.as_slice(), m.as_slice(), v.as_slice()])
}

/// Overwrites all of `to` with `from`, which is as long.
///
/// # Errors
/// As [`scale`].
pub fn copy(from: Slice<'_>, to: SliceMut<'_>) -> Result<(), DeviceError> {
    record::copied(from, to.as_slice());
    match to {
        SliceMut::Host(to) => {
            let pieces = to.par_chunks_mut(PIECE).zip(from.host().par_chunks(PIECE));
            pieces.for_each(|(to, from)| to.copy_from_slice(from));
            Ok(())
        }
        SliceMut::Cuda(device, mut to) => device.copy(&from.cuda(), &mut to),
    }
}

/// Overwrites all values with +0.
///
/// # Errors
/// As [`scale`].
pub fn clear(values: SliceMut<'_>) -> Result<(), DeviceError> {
    record::cleared(values.as_slice());
    match values {
        SliceMut::Host(values) => {
            values.par_chunks_mut(PIECE).for_each(|piece| piece.fill(0.0));
            Ok(())
        }
        SliceMut::Cuda(device, mut values) => device.fill(0, &mut values),
    }
}
