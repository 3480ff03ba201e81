//! The room's ops as a CUDA device runs them.

use super::{Format, cuda};
use crate::catalogue::Case;
use crate::device::trials::{OnDevice, STRIDING_WAYS, Trial, striding_grid};
use crate::device::{CudaDevice, DeviceError};

/// `codec.bf16`.
pub static BF16: Trial = Trial {
    op: "codec.bf16",
    ways: STRIDING_WAYS,
    more_cases: Vec::new,
    run: |device, way, case, inputs, outputs| encode(device, Format::Bf16, way, case, inputs, outputs),
};

/// `codec.int8`.
pub static INT8: Trial = Trial {
    op: "codec.int8",
    ways: STRIDING_WAYS,
    more_cases: Vec::new,
    run: |device, way, case, inputs, outputs| encode(device, Format::Int8, way, case, inputs, outputs),
};

/// `codec.decode_int8`.
pub static DECODE_INT8: Trial = Trial {
    op: "codec.decode_int8",
    ways: STRIDING_WAYS,
    more_cases: Vec::new,
    run: |device, way, _, inputs, outputs| {
        let bytes = inputs.view("bytes");
        let [mut y] = outputs.floats(["y"]);
        let mut status = device.upload(&[cuda::NO_FAULT])?;
        {
            let mut status = status.view_mut();
            match striding_grid(way) {
                None => cuda::decode(device, Format::Int8, &bytes, &mut y.view(), &mut status)?,
                Some(grid) => {
                    cuda::decode_on(device, grid, Format::Int8, &bytes, &mut y.view(), &mut status)?;
                }
            }
        }
        assert_eq!(device.download(&status.view())?, [cuda::NO_FAULT], "the catalogue's bytes are canonical");
        Ok(())
    },
};

fn encode(
    device: &CudaDevice,
    format: Format,
    way: usize,
    _: &Case,
    inputs: &OnDevice,
    outputs: &mut OnDevice,
) -> Result<(), DeviceError> {
    let x = inputs.view("x");
    let [residual, bytes] = outputs.all(["residual", "bytes"]);
    let (mut residual, mut bytes) = (residual.of(), bytes.of());
    let mut status = device.upload(&[cuda::NO_FAULT])?;
    {
        let (mut residual, mut bytes, mut status) = (residual.view(), bytes.view(), status.view_mut());
        match striding_grid(way) {
            None => {
                cuda::encode_with_feedback(device, format, &x, &mut residual, &mut bytes, &mut status)?;
            }
            Some(grid) => cuda::encode_with_feedback_on(
                device,
                grid,
                format,
                &x,
                &mut residual,
                &mut bytes,
                &mut status,
            )?,
        }
    }
    assert_eq!(device.download(&status.view())?, [cuda::NO_FAULT], "the catalogue's inputs are finite");
    Ok(())
}
