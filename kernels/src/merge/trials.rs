//! The room's ops as a CUDA device runs them.

use super::{Rule, cases, cuda};
use crate::catalogue::Case;
use crate::device::trials::{OnDevice, STRIDING_WAYS, Trial, striding_grid};
use crate::device::{CudaDevice, DeviceError, ViewMut};

/// `merge.exponents`.
pub static EXPONENTS: Trial = Trial {
    op: "merge.exponents",
    ways: STRIDING_WAYS,
    more_cases: Vec::new,
    run: |device, way, _, inputs, outputs| {
        let [old, local, residual] = ["old", "local", "residual"].map(|name| inputs.view(name));
        let change = cuda::Contribution { old: &old, local: &local };
        let [exponents] = outputs.all(["exponents"]);
        let mut exponents = exponents.of();
        let mut status = device.upload(&[cuda::NO_FAULT])?;
        {
            let (mut exponents, mut status) = (exponents.view(), status.view_mut());
            match striding_grid(way) {
                None => cuda::exponents(device, &change, &residual, &mut exponents, &mut status)?,
                Some(grid) => {
                    cuda::exponents_on(device, grid, &change, &residual, &mut exponents, &mut status)?;
                }
            }
        }
        assert_eq!(device.download(&status.view())?, [cuda::NO_FAULT], "the catalogue's inputs are finite");
        Ok(())
    },
};

/// `merge.contribute`.
pub static CONTRIBUTE: Trial = Trial {
    op: "merge.contribute",
    ways: STRIDING_WAYS,
    more_cases: Vec::new,
    run: |device, way, case, inputs, outputs| {
        let (old, local) = (inputs.view("old"), inputs.view("local"));
        let change = cuda::Contribution { old: &old, local: &local };
        let (exponents, bits) = (inputs.view("exponents"), case.dim("bits") as u32);
        let [residual, codes] = outputs.all(["residual", "codes"]);
        let (mut residual, mut codes) = (residual.of(), codes.of());
        let mut status = device.upload(&[cuda::NO_FAULT])?;
        {
            let (mut r, mut q, mut status) = (residual.view(), codes.view(), status.view_mut());
            match striding_grid(way) {
                None => cuda::contribute(device, &change, &exponents, bits, &mut r, &mut q, &mut status)?,
                Some(grid) => {
                    let e = &exponents;
                    cuda::contribute_on(device, grid, &change, e, bits, &mut r, &mut q, &mut status)?;
                }
            }
        }
        assert_eq!(device.download(&status.view())?, [cuda::NO_FAULT], "the catalogue's inputs are finite");
        Ok(())
    },
};

/// `merge.accumulate`.
pub static ACCUMULATE: Trial = Trial {
    op: "merge.accumulate",
    ways: STRIDING_WAYS,
    more_cases: Vec::new,
    run: |device, way, _, inputs, outputs| {
        let codes = inputs.view("codes");
        let [sums] = outputs.all(["sums"]);
        let mut sums = sums.of();
        match striding_grid(way) {
            None => cuda::accumulate(device, &mut sums.view(), &codes, cases::WEIGHT),
            Some(grid) => cuda::accumulate_on(device, grid, &mut sums.view(), &codes, cases::WEIGHT),
        }
    },
};

/// `merge.nesterov`.
pub static NESTEROV: Trial = Trial {
    op: "merge.nesterov",
    ways: STRIDING_WAYS,
    more_cases: Vec::new,
    run: |device, way, case, inputs, outputs| {
        let [mut p, mut buf] = outputs.floats(["p", "buf"]);
        outer_step(device, way, case, inputs, cases::NESTEROV, &mut p.view(), &mut buf.view())
    },
};

/// `merge.none`.
pub static PLAIN: Trial = Trial {
    op: "merge.none",
    ways: STRIDING_WAYS,
    more_cases: Vec::new,
    run: |device, way, case, inputs, outputs| {
        let [mut p] = outputs.floats(["p"]);
        let mut nothing = device.scratch(0)?;
        outer_step(device, way, case, inputs, Rule::None, &mut p.view(), &mut nothing.view_mut())
    },
};

fn outer_step(
    device: &CudaDevice,
    way: usize,
    case: &Case,
    inputs: &OnDevice,
    rule: Rule,
    p: &mut ViewMut<'_, f32>,
    buf: &mut ViewMut<'_, f32>,
) -> Result<(), DeviceError> {
    let (sums, exponents) = (inputs.view("sums"), inputs.view("exponents"));
    let args = cuda::OuterStep {
        sums: &sums,
        exponents: &exponents,
        bits: case.dim("bits") as u32,
        total_weight: cases::TOTAL_WEIGHT,
        rule,
    };
    match striding_grid(way) {
        None => cuda::outer_step(device, &args, p, buf),
        Some(grid) => cuda::outer_step_on(device, grid, &args, p, buf),
    }
}
