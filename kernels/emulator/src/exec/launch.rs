//! A launch: blocks in parallel.

use rayon::prelude::*;

use super::block::{Worker, thread_of};
use super::check::Allocations;
use super::count::{Mode, Run, Tally};
use super::fault::{Fault, Report};
use super::program::Program;

/// The shape and arguments of a launch.
#[derive(Debug, Clone)]
pub struct Launch<'a> {
    /// Blocks along x, y, z; none is 0.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z; none is 0.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub dynamic_shared: usize,
    /// The argument block, `Program::param_bytes` long.
    pub params: &'a [u8],
    /// Device memory, if the run is to be checked.
    pub check: Option<&'a Allocations>,
    /// Where counters go, if the run is to be counted.
    pub count: Option<&'a Tally>,
    /// How often a warp may jump back before it is taken to run for ever.
    pub jump_limit: u64,
    /// Compute capability of the device, such as 86: sums on tensor cores depend on it.
    pub sm: u32,
}

/// At some 10^8 jumps a second, a warp that spins is found after ten seconds; the longest loop of a real kernel that
/// runs here is far shorter.
pub const JUMP_LIMIT: u64 = 1 << 30;

impl<'a> Launch<'a> {
    /// `grid` blocks of `block` threads in x, neither checked nor counted.
    pub fn new(grid: u32, block: u32, params: &'a [u8]) -> Self {
        Self {
            grid: [grid, 1, 1],
            block: [block, 1, 1],
            dynamic_shared: 0,
            params,
            check: None,
            count: None,
            jump_limit: JUMP_LIMIT,
            sm: 86,
        }
    }

    /// Threads of a block.
    pub fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    /// Blocks of the grid.
    pub fn blocks(&self) -> u64 {
        self.grid.iter().map(|&n| u64::from(n)).product()
    }
}

/// Runs a kernel to its end.
///
/// # Errors
/// The fault of one block; others may have run.
///
/// # Safety
/// Unless the launch is checked, every device address the kernel forms must be valid for the access; in both
/// cases nothing else may use that memory meanwhile.
pub unsafe fn launch(program: &Program, launch: &Launch<'_>) -> Result<(), Box<Report>> {
    assert_eq!(launch.params.len(), program.param_bytes, "the argument block of `{}`", program.name);
    assert!(launch.threads() > 0 && launch.blocks() > 0, "an empty launch of `{}`", program.name);
    let none = Allocations::default();
    // SAFETY: the caller's promise.
    unsafe {
        match (launch.check, launch.count.is_some()) {
            (None, false) => run::<Run<false, false>>(program, launch, &none),
            (None, true) => run::<Run<false, true>>(program, launch, &none),
            (Some(allocations), false) => run::<Run<true, false>>(program, launch, allocations),
            (Some(allocations), true) => run::<Run<true, true>>(program, launch, allocations),
        }
    }
}

unsafe fn run<M: Mode>(
    program: &Program,
    launch: &Launch<'_>,
    allocations: &Allocations,
) -> Result<(), Box<Report>> {
    let blocks = launch.blocks();
    let [nx, ny, _] = launch.grid.map(u64::from);
    let one = |worker: &mut Worker<'_>, index: u64| {
        let block = [index % nx, index / nx % ny, index / nx / ny].map(|n| n as u32);
        // SAFETY: the caller's promise.
        unsafe { worker.run::<M>(block, allocations) }
            .map_err(|fault| Box::new(report(program, launch, block, &fault)))
    };
    if blocks == 1 {
        let mut worker = Worker::new(program, launch);
        one(&mut worker, 0)?;
        worker.tell::<M>();
        return Ok(());
    }
    // A worker's buffers cost more than a small block: give each a run of blocks.
    let share = (blocks / (8 * rayon::current_num_threads() as u64)).clamp(1, 1 << 20) as usize;
    let chunks = blocks.div_ceil(share as u64);
    (0..chunks).into_par_iter().try_for_each(|chunk| {
        let mut worker = Worker::new(program, launch);
        let from = chunk * share as u64;
        (from..(from + share as u64).min(blocks)).try_for_each(|index| one(&mut worker, index))?;
        worker.tell::<M>();
        Ok(())
    })
}

fn report(program: &Program, launch: &Launch<'_>, block: [u32; 3], fault: &Fault) -> Report {
    let (ptx_line, cuda_line) = fault.pc.map_or((0, None), |pc| program.lines_of(pc));
    let text = program.source.lines().nth((ptx_line as usize).wrapping_sub(1)).unwrap_or("");
    Report {
        kind: fault.kind,
        what: fault.what.clone(),
        kernel: program.name.clone(),
        block,
        thread: fault.lane.map(|lane| thread_of(fault.warp, lane, launch.block)),
        warp_lane: (fault.warp, fault.lane),
        ptx_line,
        ptx_text: text.split_whitespace().collect::<Vec<_>>().join(" "),
        cuda_line,
    }
}
