//! Whole programs in PTX, run in this process: what instructions mean together, what faults are found, and
//! what is refused.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod dialects;
mod faults;
mod semantics;

#[path = "../common/values.rs"]
mod values;

use cuda_emulator::exec::check::Allocations;
use cuda_emulator::exec::fault::Report;
use cuda_emulator::exec::launch::{Launch, launch};
use cuda_emulator::exec::load;

/// A launch of a kernel over arrays of words.
struct Run<'a> {
    source: &'a str,
    kernel: &'a str,
    grid: u32,
    block: u32,
    dynamic_shared: usize,
    check: bool,
    /// Scalars that follow the arrays' addresses.
    scalars: &'a [u32],
}

impl<'a> Run<'a> {
    /// One block of 32 threads, unchecked.
    fn new(source: &'a str, kernel: &'a str) -> Self {
        Self { source, kernel, grid: 1, block: 32, dynamic_shared: 0, check: false, scalars: &[] }
    }

    /// Runs with each array's address as a parameter.
    fn on(&self, arrays: &mut [&mut [u32]]) -> Result<(), Box<Report>> {
        let module = load(self.source).unwrap_or_else(|error| panic!("{}", error.quoting(self.source)));
        let program = &module.programs[self.kernel];
        let mut params = Vec::new();
        let mut ranges: Vec<(u64, u64)> =
            module.variables.values().map(|&(start, bytes)| (start, start + bytes as u64)).collect();
        for array in arrays.iter_mut() {
            let start = array.as_mut_ptr() as u64;
            params.extend(start.to_le_bytes());
            ranges.push((start, start + size_of_val(&**array) as u64));
        }
        for scalar in self.scalars {
            params.extend(scalar.to_le_bytes());
        }
        let allocations = Allocations::new(ranges);
        let shape = Launch {
            grid: [self.grid, 1, 1],
            block: [self.block, 1, 1],
            dynamic_shared: self.dynamic_shared,
            params: &params,
            check: self.check.then_some(&allocations),
        };
        // SAFETY: programs that leave their arrays are run checked.
        unsafe { launch(program, &shape) }
    }

    /// Runs checked and unchecked; both must succeed with the same result.
    fn both(&self, output: &mut [u32]) {
        let before = output.to_vec();
        Run { check: false, ..*self }.on(&mut [output]).unwrap_or_else(|report| panic!("{report}"));
        let mut again = before;
        Run { check: true, ..*self }.on(&mut [&mut again]).unwrap_or_else(|report| panic!("{report}"));
        assert_eq!(*output, again, "checks changed the result of {}", self.kernel);
    }
}
