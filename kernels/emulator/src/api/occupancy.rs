//! Occupancy, by threads and shared memory: registers are not assigned here and limit nothing.

use std::ffi::{c_int, c_uint};

use super::device::{MAX_THREADS, MULTIPROCESSORS};
use super::settings::Settings;
use super::state::{Function, healthy};
use super::status::Status;
use super::{Handle, Outcome, driver_calls, give};

/// Dynamic shared memory a block of so many threads needs, bytes.
pub type SharedOfBlock = Option<unsafe extern "C" fn(c_int) -> usize>;

driver_calls! {
    /// Blocks a multiprocessor holds at a time.
    fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: *mut c_int,
        function: Handle,
        threads: c_int,
        shared_bytes: usize,
    ) {
        active(blocks, function, threads, shared_bytes)
    }

    /// As without flags.
    fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
        blocks: *mut c_int,
        function: Handle,
        threads: c_int,
        shared_bytes: usize,
        _flags: c_uint,
    ) {
        active(blocks, function, threads, shared_bytes)
    }

    /// The block size with the most threads in flight.
    fn cuOccupancyMaxPotentialBlockSize(
        grid: *mut c_int,
        block: *mut c_int,
        function: Handle,
        shared_of_block: SharedOfBlock,
        shared_bytes: usize,
        limit: c_int,
    ) {
        potential(grid, block, function, shared_of_block, shared_bytes, limit)
    }

    /// As without flags.
    fn cuOccupancyMaxPotentialBlockSizeWithFlags(
        grid: *mut c_int,
        block: *mut c_int,
        function: Handle,
        shared_of_block: SharedOfBlock,
        shared_bytes: usize,
        limit: c_int,
        _flags: c_uint,
    ) {
        potential(grid, block, function, shared_of_block, shared_bytes, limit)
    }

    /// Dynamic shared memory each of `blocks` blocks may have.
    fn cuOccupancyAvailableDynamicSMemPerBlock(out: *mut usize, function: Handle, blocks: c_int, threads: c_int) {
        let (state, settings) = healthy()?;
        let function = state.functions.get(&(function as u64)).ok_or(Status::InvalidHandle)?;
        let blocks = u32::try_from(blocks).ok().filter(|&blocks| blocks > 0).ok_or(Status::InvalidValue)?;
        if threads <= 0 {
            return Err(Status::InvalidValue);
        }
        let share = (settings.model.shared_per_sm / blocks).min(settings.model.shared_per_block);
        let reserved = reserved(&settings) + function.program.shared_bytes as u32;
        // SAFETY: the contract of every call here.
        unsafe { give(out, share.saturating_sub(reserved) as usize) }
    }
}

/// Shared memory the system keeps of each block, bytes.
fn reserved(settings: &Settings) -> u32 {
    if settings.model.sm >= 80 { 1 << 10 } else { 0 }
}

fn blocks_per_sm(function: &Function, settings: &Settings, threads: u32, shared_bytes: u64) -> u32 {
    let program = &function.program;
    if threads == 0 || threads > program.max_threads.unwrap_or(MAX_THREADS).min(MAX_THREADS) {
        return 0;
    }
    let model = &settings.model;
    let shared = shared_bytes + program.shared_bytes as u64;
    if shared > u64::from(model.shared_per_block) {
        return 0;
    }
    let by_threads = model.threads_per_sm / threads.next_multiple_of(32);
    let whole = shared + u64::from(reserved(settings));
    let by_shared = u64::from(model.shared_per_sm).checked_div(whole).unwrap_or(u64::MAX);
    by_threads.min(model.blocks_per_sm).min(by_shared.min(u64::from(u32::MAX)) as u32)
}

fn active(blocks: *mut c_int, function: Handle, threads: c_int, shared_bytes: usize) -> Outcome {
    let (state, settings) = healthy()?;
    let function = state.functions.get(&(function as u64)).ok_or(Status::InvalidHandle)?;
    let threads = u32::try_from(threads).map_err(|_| Status::InvalidValue)?;
    // SAFETY: the contract of the calls above.
    unsafe { give(blocks, blocks_per_sm(function, &settings, threads, shared_bytes as u64) as c_int) }
}

fn potential(
    grid: *mut c_int,
    block: *mut c_int,
    function: Handle,
    shared_of_block: SharedOfBlock,
    shared_bytes: usize,
    limit: c_int,
) -> Outcome {
    let (state, settings) = healthy()?;
    let function = state.functions.get(&(function as u64)).cloned().ok_or(Status::InvalidHandle)?;
    drop(state);
    let limit = if limit > 0 { limit as u32 } else { MAX_THREADS };
    let (mut best, mut blocks) = (0, 0);
    for threads in (32..=limit.min(MAX_THREADS)).step_by(32) {
        // SAFETY: the contract of the calls above.
        let shared = shared_of_block.map_or(shared_bytes, |of| unsafe { of(threads as c_int) });
        let found = blocks_per_sm(&function, &settings, threads, shared as u64);
        if found > 0 && found * threads >= blocks * best {
            (best, blocks) = (threads, found);
        }
    }
    // SAFETY: the contract of the calls above.
    unsafe {
        give(grid, (blocks * MULTIPROCESSORS) as c_int)?;
        give(block, best as c_int)
    }
}
