//! The loss and its mean.

use crate::tensor::{Ids, Slice, Tensor};
use crate::trace::{Kind, record};
use kernels::cross_entropy as softmax;
use kernels::device::{Device, DeviceError};

/// The loss of each row of `logits` against its target, to `loss`; the gradient of their mean is returned.
///
/// # Errors
/// The device has no memory left, or is lost; likewise below.
pub fn cross_entropy(mut logits: Tensor, targets: &[u32], loss: &mut Tensor) -> Result<Tensor, DeviceError> {
    let (rows, vocab) = (logits.rows(), logits.cols());
    let weight = (1.0 / rows as f64) as f32;
    let reads = record::reads(&[logits.values()]);
    match logits.values() {
        Slice::Host(_) => {
            softmax::forward_in_place(vocab, targets, weight, loss.data_mut(), logits.data_mut());
        }
        Slice::Cuda(device, _) => {
            let device = device.clone();
            let targets = Ids::copy_of(&Device::Cuda(device.clone()), targets)?;
            let targets = targets.cuda();
            let args = softmax::cuda::Rows { rows, vocab, targets: &targets, weight };
            softmax::cuda::forward_in_place(&device, &args, &mut loss.cuda_mut(), &mut logits.cuda_mut())?;
        }
    }
    record::wrote(reads, Ok(()), Kind::Loss { vocab, weight }, &[loss.values(), logits.values()])?;
    // The gradient stands where the logits stood.
    Ok(logits)
}

/// The mean of losses, in units of 2^-32 nats; none if one is no number.
///
/// # Errors
/// As [`cross_entropy`].
pub fn mean_q32(losses: &Tensor) -> Result<Option<i64>, DeviceError> {
    let reads = record::reads(&[losses.values()]);
    let mean = match losses.values() {
        Slice::Host(losses) => softmax::mean_q32(losses),
        Slice::Cuda(device, losses) => {
            let mut mean = device.scratch(1)?;
            softmax::cuda::mean_q32(device, &losses, &mut mean.view_mut())?;
            let mut found = [0];
            device.fetch(&mean.view(), &mut found)?;
            (found[0] != i64::MIN).then_some(found[0])
        }
    };
    record::made(reads, Kind::Mean, &mean.unwrap_or(i64::MIN).to_le_bytes())?;
    Ok(mean)
}
