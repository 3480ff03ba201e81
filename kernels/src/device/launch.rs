//! One launch of a kernel: its arguments in the kernel's order, then the grid.

use std::ffi::c_void;

use std::marker::PhantomData;

use cudarc::driver::{CudaStream, result};

use super::module::Kernel;
use super::ptx::{self, Parameter};
use super::{CudaDevice, DeviceError, Placed, View, ViewMut};

/// A launch being put together. Arguments are taken in the order of the kernel's parameters and held against the list in
/// its PTX.
#[must_use = "a launch does nothing until `run`"]
pub struct Launch<'a> {
    entry: &'static str,
    /// Where it is queued; nowhere on an imagined device.
    target: Option<(&'a CudaStream, Kernel)>,
    arguments: Vec<Argument>,
    /// The views outlive the launch.
    views: PhantomData<&'a ()>,
}

/// What a kernel adds its result to.
#[derive(Debug)]
pub enum Base<'a> {
    /// Nothing: the output is overwritten.
    Nothing,
    /// What the output holds.
    Output,
    /// Another array of the output's size.
    View(&'a View<'a, f32>),
}

/// How many blocks, of how many threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks in x.
    pub x: u32,
    /// Blocks in y, at most 65535.
    pub y: u32,
    /// Threads of a block, or [`Grid::DECLARED`].
    pub threads: u32,
}

/// Threads of a block that strides over elements.
const STRIDING_THREADS: u32 = 256;
/// Blocks of them that a multiprocessor holds at once: more would only queue.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 6;

impl Grid {
    /// As many threads as the kernel declares: where that differs between architectures.
    pub const DECLARED: u32 = 0;

    /// For a kernel that strides over its work: a thread for each of `items`, but no more blocks than run at once.
    pub fn striding(device: &CudaDevice, items: usize) -> Self {
        let wanted = items.div_ceil(STRIDING_THREADS as usize);
        let resident = device.multiprocessors().max(1) * BLOCKS_PER_MULTIPROCESSOR;
        Self::blocks(u32::try_from(wanted).map_or(resident, |wanted| wanted.min(resident)))
    }

    /// So many blocks of a kernel that strides over its work.
    pub fn blocks(x: u32) -> Self {
        Self { x, y: 1, threads: STRIDING_THREADS }
    }
}

#[derive(Clone, Copy)]
enum Argument {
    U64(u64),
    U32(u32),
    F32(f32),
    F64(f64),
}

impl<'a> Launch<'a> {
    pub(super) fn new(stream: &'a CudaStream, entry: &'static str, kernel: Kernel) -> Self {
        let arguments = Vec::with_capacity(kernel.parameters.len());
        Self { entry, target: Some((stream, kernel)), arguments, views: PhantomData }
    }

    pub(super) fn imagined(entry: &'static str) -> Self {
        Self { entry, target: None, arguments: Vec::new(), views: PhantomData }
    }

    /// Memory that the kernel reads.
    pub fn read<T>(mut self, view: &'a View<'_, T>) -> Self {
        self.arguments.push(Argument::U64(view.address()));
        self
    }

    /// Memory that the kernel writes.
    pub fn write<T>(mut self, view: &'a mut ViewMut<'_, T>) -> Self {
        self.arguments.push(Argument::U64(view.address()));
        self
    }

    /// Two parameters: what a kernel adds to, or no address, and where it puts the sum.
    pub fn write_onto(self, base: &'a Base<'a>, output: &'a mut ViewMut<'_, f32>) -> Self {
        match base {
            Base::Nothing => self.nothing().write(output),
            Base::View(view) => self.read(view).write(output),
            Base::Output => {
                let mut launch = self.write(output);
                launch.arguments.extend(launch.arguments.last().copied());
                launch
            }
        }
    }

    /// No memory, where the kernel can do without.
    pub fn nothing(mut self) -> Self {
        self.arguments.push(Argument::U64(0));
        self
    }

    /// A 64-bit count.
    pub fn u64(mut self, value: u64) -> Self {
        self.arguments.push(Argument::U64(value));
        self
    }

    /// A 32-bit count.
    pub fn u32(mut self, value: u32) -> Self {
        self.arguments.push(Argument::U32(value));
        self
    }

    /// A float.
    pub fn f32(mut self, value: f32) -> Self {
        self.arguments.push(Argument::F32(value));
        self
    }

    /// A double.
    pub fn f64(mut self, value: f64) -> Self {
        self.arguments.push(Argument::F64(value));
        self
    }

    /// Queues the launch.
    ///
    /// # Errors
    /// [`DeviceError::Arguments`] if they are not what the kernel takes; [`DeviceError::Driver`] if the driver refuses
    /// the launch, or an earlier one has failed.
    ///
    /// # Safety
    /// On `grid`, with these arguments, the kernel stays within the memory of its views.
    pub unsafe fn run(mut self, grid: Grid) -> Result<(), DeviceError> {
        let Some((stream, kernel)) = self.target else { return Ok(()) };
        if !self.arguments.iter().map(Argument::kind).eq(kernel.parameters.iter().copied()) {
            let found: Vec<Parameter> = self.arguments.iter().map(Argument::kind).collect();
            return Err(DeviceError::Arguments {
                entry: self.entry.to_owned(),
                expected: ptx::list(&kernel.parameters),
                found: ptx::list(&found),
            });
        }
        let threads = match grid.threads {
            Grid::DECLARED => kernel.threads.unwrap_or(Grid::DECLARED),
            threads => threads,
        };
        let launching = || format!("to launch {} on {grid:?}", self.entry);
        stream.context().bind_to_thread().map_err(|e| DeviceError::of(e, launching))?;
        let mut packed: Vec<*mut c_void> = self.arguments.iter_mut().map(Argument::address).collect();
        // SAFETY: `packed` points at one live value per parameter, of the parameter's size, as compared above; the
        // driver copies them before it returns. The caller answers for what the kernel does with them.
        let queued = unsafe {
            result::launch_kernel(
                kernel.function.cu_function(),
                (grid.x, grid.y, 1),
                (threads, 1, 1),
                kernel.shared_bytes,
                stream.cu_stream(),
                &mut packed,
            )
        };
        queued.map_err(|e| DeviceError::of(e, launching))
    }
}

impl Argument {
    fn kind(&self) -> Parameter {
        match self {
            Self::U64(_) => Parameter::U64,
            Self::U32(_) => Parameter::U32,
            Self::F32(_) => Parameter::F32,
            Self::F64(_) => Parameter::F64,
        }
    }

    fn address(&mut self) -> *mut c_void {
        match self {
            Self::U64(value) => (&raw mut *value).cast(),
            Self::U32(value) => (&raw mut *value).cast(),
            Self::F32(value) => (&raw mut *value).cast(),
            Self::F64(value) => (&raw mut *value).cast(),
        }
    }
}

/// `found` as kernels count it: below 2^31, so that a step beyond the end does not wrap around.
///
/// # Errors
/// [`DeviceError::TooLarge`], naming `op` and `what`.
pub fn count32(op: &'static str, what: &'static str, found: usize) -> Result<u32, DeviceError> {
    i32::try_from(found).map(i32::unsigned_abs).map_err(|_| DeviceError::TooLarge {
        op,
        what,
        found,
        most: i32::MAX as usize,
    })
}
