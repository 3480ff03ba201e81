//! Launches.

use std::ffi::{c_uint, c_void};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use super::device::MAX_THREADS;
use super::settings::{Settings, counters_path};
use super::state::{Function, healthy, lock};
use super::status::Status;
use super::{Handle, Outcome, driver_calls};
use crate::exec::count::Tally;
use crate::exec::launch::{Launch, launch};
use crate::exec::program::Program;

/// `CUlaunchConfig`
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct LaunchConfig {
    /// Blocks along x, y, z.
    pub grid: [c_uint; 3],
    /// Threads of a block along x, y, z.
    pub block: [c_uint; 3],
    /// Dynamic shared memory in bytes.
    pub shared_bytes: c_uint,
    /// The stream.
    pub stream: Handle,
    /// Attributes; none is implemented.
    pub attributes: *const c_void,
    /// Their number.
    pub attribute_count: c_uint,
}

driver_calls! {
    /// Runs a kernel.
    fn cuLaunchKernel(
        function: Handle,
        grid_x: c_uint,
        grid_y: c_uint,
        grid_z: c_uint,
        block_x: c_uint,
        block_y: c_uint,
        block_z: c_uint,
        shared_bytes: c_uint,
        stream: Handle,
        params: *const *const c_void,
        extra: *const *const c_void,
    ) {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        // SAFETY: the contract of every call here.
        unsafe { run(function, grid, block, shared_bytes, stream, params, extra) }
    }

    /// Runs a kernel by a description; attributes such as clusters do not exist here.
    fn cuLaunchKernelEx(
        config: *const LaunchConfig,
        function: Handle,
        params: *const *const c_void,
        extra: *const *const c_void,
    ) {
        if config.is_null() {
            return Err(Status::InvalidValue);
        }
        // SAFETY: the contract of every call here.
        let config = unsafe { config.read() };
        if config.attribute_count != 0 {
            return Err(Status::NotSupported);
        }
        // SAFETY: the contract of every call here.
        unsafe { run(function, config.grid, config.block, config.shared_bytes, config.stream, params, extra) }
    }
}

/// # Safety
/// `params` or `extra` are as the Driver API describes them for this function.
unsafe fn run(
    function: Handle,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    stream: Handle,
    params: *const *const c_void,
    extra: *const *const c_void,
) -> Outcome {
    let (mut state, settings) = healthy()?;
    state.check_stream(stream)?;
    let function = state.functions.get(&(function as u64)).cloned().ok_or(Status::InvalidHandle)?;
    check_shape(&function, grid, block, shared_bytes, &settings)?;
    // SAFETY: the caller's promise.
    let params = unsafe { arguments(&function.program, params, extra)? };
    let allocations = settings.check.then(|| state.allocations());
    let may_touch = params
        .windows(8)
        .step_by(8)
        .filter_map(|word| Some((u64::from_le_bytes(word.try_into().ok()?), true)));
    state.check_order(&settings, stream, &format!("kernel {}", function.program.name), may_touch)?;
    state.launches_asked += 1;
    let (number, faults) = (state.launches_asked, settings.faults);
    if number == faults.lost {
        state.lost = true;
        return Err(Status::DeviceUnavailable);
    } else if number == faults.launch {
        return Err(Status::LaunchFailed);
    } else if number == faults.sticky {
        state.sticky = Some(Status::IllegalAddress);
        return Ok(());
    }
    drop(state);
    let counted = counters_path().map(|path| (path, Tally::default()));
    let shape = Launch {
        grid,
        block,
        dynamic_shared: shared_bytes as usize,
        params: &params,
        check: allocations.as_ref(),
        count: counted.as_ref().map(|(_, tally)| tally),
        jump_limit: settings.jump_limit,
        sm: settings.model.sm,
    };
    // SAFETY: addresses are the kernel's word, as on a device; the caller orders the use of memory by streams.
    if let Err(report) = unsafe { launch(&function.program, &shape) } {
        eprintln!("emulated GPU: {report}");
        let mut state = lock();
        state.sticky = state.sticky.or(Some(report.kind.into()));
        return Ok(());
    }
    if let Some((path, tally)) = counted {
        let program = &function.program;
        let line = tally.counters().json(&program.name, grid, block, |pc| program.lines_of(pc));
        append(path, &line);
    }
    Ok(())
}

/// One write for one line, so that processes may share a file.
fn append(path: &Path, line: &str) {
    let file = OpenOptions::new().create(true).append(true).open(path);
    if let Err(error) = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes())) {
        eprintln!("emulated GPU: counters cannot be written to {}: {error}", path.display());
    }
}

fn check_shape(
    function: &Function,
    grid: [u32; 3],
    block: [u32; 3],
    shared_bytes: u32,
    settings: &Settings,
) -> Outcome {
    let within =
        |shape: [u32; 3], limits: [u32; 3]| (0..3).all(|axis| (1..=limits[axis]).contains(&shape[axis]));
    if !within(grid, [i32::MAX as u32, 65535, 65535]) || !within(block, [MAX_THREADS, MAX_THREADS, 64]) {
        return Err(Status::InvalidValue);
    }
    let threads = block.iter().map(|&n| u64::from(n)).product::<u64>();
    let program = &function.program;
    let most = program.max_threads.unwrap_or(MAX_THREADS).min(MAX_THREADS);
    if threads > u64::from(most) || (program.exact_threads && threads != u64::from(most)) {
        return Err(Status::InvalidValue);
    }
    let shared = program.shared_bytes as u64 + u64::from(shared_bytes);
    if shared_bytes > function.max_dynamic_shared || shared > u64::from(settings.model.shared_per_block) {
        return Err(Status::InvalidValue);
    }
    if program.registers > 1 << 20 {
        return Err(Status::LaunchOutOfResources);
    }
    Ok(())
}

/// `CU_LAUNCH_PARAM_BUFFER_POINTER` and `CU_LAUNCH_PARAM_BUFFER_SIZE`
const BUFFER: (usize, usize) = (1, 2);

/// The argument block.
///
/// # Safety
/// As `run`.
unsafe fn arguments(
    program: &Program,
    params: *const *const c_void,
    extra: *const *const c_void,
) -> Result<Vec<u8>, Status> {
    let mut block = vec![0u8; program.param_bytes];
    if !extra.is_null() {
        let (mut source, mut size) = (std::ptr::null::<c_void>(), 0);
        let mut at = 0;
        // SAFETY: the list ends with a null key; values follow their keys.
        unsafe {
            while !(*extra.add(at)).is_null() {
                let (key, value) = (*extra.add(at) as usize, *extra.add(at + 1));
                if key == BUFFER.0 {
                    source = value;
                } else if key == BUFFER.1 {
                    if value.is_null() {
                        return Err(Status::InvalidValue);
                    }
                    size = value.cast::<usize>().read();
                } else {
                    return Err(Status::InvalidValue);
                }
                at += 2;
            }
            if source.is_null() || size < block.len() {
                return Err(Status::InvalidValue);
            }
            std::ptr::copy_nonoverlapping(source.cast(), block.as_mut_ptr(), block.len());
        }
        return Ok(block);
    }
    if program.params.is_empty() {
        return Ok(block);
    }
    if params.is_null() {
        return Err(Status::InvalidValue);
    }
    for (index, param) in program.params.iter().enumerate() {
        // SAFETY: there is a pointer for every parameter of the kernel, to a value of its size.
        unsafe {
            let from = (*params.add(index)).cast::<u8>();
            if from.is_null() {
                return Err(Status::InvalidValue);
            }
            std::ptr::copy_nonoverlapping(from, block.as_mut_ptr().add(param.offset), param.bytes);
        }
    }
    Ok(block)
}
