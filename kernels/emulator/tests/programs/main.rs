//! Whole programs in PTX, run in this process: what instructions mean together, what faults are found, and
//! what is refused.

#![allow(clippy::unwrap_used, reason = "tests may unwrap")]

mod calls;
mod dialects;
mod faults;
mod instructions;
mod semantics;
mod tensor;

#[path = "../common/values.rs"]
mod values;

use std::sync::Arc;

use cuda_emulator::exec::check::{Allocations, Range};
use cuda_emulator::exec::count::Tally;
use cuda_emulator::exec::fault::Report;
use cuda_emulator::exec::launch::{JUMP_LIMIT, Launch, launch};
use cuda_emulator::exec::load;
use cuda_emulator::exec::written::Written;

/// A launch of a kernel over arrays of words.
struct Run<'a> {
    source: &'a str,
    kernel: &'a str,
    grid: u32,
    block: u32,
    dynamic_shared: usize,
    check: bool,
    /// The arrays count as never written.
    fresh: bool,
    jump_limit: u64,
    count: Option<&'a Tally>,
    /// Scalars that follow the arrays' addresses.
    scalars: &'a [u32],
}

impl<'a> Run<'a> {
    /// One block of 32 threads, unchecked.
    fn new(source: &'a str, kernel: &'a str) -> Self {
        Self {
            source,
            kernel,
            grid: 1,
            block: 32,
            dynamic_shared: 0,
            check: false,
            fresh: false,
            jump_limit: JUMP_LIMIT,
            count: None,
            scalars: &[],
        }
    }

    /// Runs with each array's address as a parameter.
    fn on(&self, arrays: &mut [&mut [u32]]) -> Result<(), Box<Report>> {
        let module = load(self.source).unwrap_or_else(|error| panic!("{}", error.quoting(self.source)));
        let program = &module.programs[self.kernel];
        let mut params = Vec::new();
        let variables = module.variables.values();
        let mut ranges: Vec<Range> = variables
            .map(|&(start, bytes)| Range { start, end: start + bytes as u64, written: None })
            .collect();
        for array in arrays.iter_mut() {
            let start = array.as_mut_ptr() as u64;
            params.extend(start.to_le_bytes());
            let bytes = size_of_val(&**array) as u64;
            let written = self.fresh.then(|| Arc::new(Written::nothing(bytes)));
            ranges.push(Range { start, end: start + bytes, written });
        }
        for scalar in self.scalars {
            params.extend(scalar.to_le_bytes());
        }
        let allocations = Allocations::new(ranges);
        let shape = Launch {
            dynamic_shared: self.dynamic_shared,
            check: self.check.then_some(&allocations),
            count: self.count,
            jump_limit: self.jump_limit,
            ..Launch::new(self.grid, self.block, &params)
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
