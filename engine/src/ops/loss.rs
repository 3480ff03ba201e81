//! The loss and its mean.

use crate::tensor::{Ids, Slice, Tensor};
use kernels::cross_entropy as softmax;
use kernels::device::{Device, DeviceError};

/// The loss of each row of `logits` against its target, to `loss`; the gradient of their mean is returned.
///
/// # Errors
/// The device has no memory left, or is lost; likewise below.
pub fn cross_entropy(mut logits: Tensor, targets: &[u32], loss: &mut Tensor) -> Result<Tensor, DeviceError> {
    let (rows, vocab) = (logits.rows(), logits.cols());
    let weight = (1.0 / rows as f64) as f32;
    match logits.values() {
        Slice::Host(_) => {
            // The gradient stands where the logits stood.
            softmax::forward_in_place(vocab, targets, weight, loss.data_mut(), logits.data_mut());
            Ok(logits)
        }
        Slice::Cuda(device, values) => {
            let targets = Ids::copy_of(&Device::Cuda(device.clone()), targets)?;
            let mut gradient = Tensor::unwritten(&logits.values().device(), logits.shape())?;
            let (targets, mut dlogits) = (targets.cuda(), gradient.cuda_mut());
            let args = softmax::cuda::Forward { rows, vocab, logits: &values, targets: &targets, weight };
            softmax::cuda::forward(device, &args, &mut loss.cuda_mut(), &mut dlogits)?;
            Ok(gradient)
        }
    }
}

/// The mean of losses, in units of 2^-32 nats; none if one is no number.
///
/// # Errors
/// As [`cross_entropy`].
pub fn mean_q32(losses: &Tensor) -> Result<Option<i64>, DeviceError> {
    match losses.values() {
        Slice::Host(losses) => Ok(softmax::mean_q32(losses)),
        Slice::Cuda(device, losses) => {
            let mut mean = device.scratch(1)?;
            softmax::cuda::mean_q32(device, &losses, &mut mean.view_mut())?;
            let mut found = [0];
            device.fetch(&mean.view(), &mut found)?;
            Ok((found[0] != i64::MIN).then_some(found[0]))
        }
    }
}
