//! Tensors: a shape and contiguous f32 values, row-major, on the host or on a device.
//!
//! A tensor owns its values and is moved, never copied behind the reader's back: there is no `Clone`. A [`View`]
//! borrows values of someone else, for example one parameter out of a stage's flat array.

mod pool;
mod values;

pub use values::{Slice, SliceMut, Values};

use kernels::device::{Buffer, Device, DeviceError, View as OnCuda, ViewMut as OnCudaMut};

/// Values of a shape, owned.
#[derive(Debug)]
pub struct Tensor {
    /// Extents, of which the first `rank` count; in place, so that making a tensor allocates nothing but its values.
    shape: [usize; RANK_MAX],
    rank: usize,
    data: Values,
}

/// Token ids where an op reads them.
#[derive(Debug)]
pub enum Ids {
    /// In host memory.
    Host(Tokens),
    /// In a device's memory.
    Cuda(Buffer<u32>),
}

impl Ids {
    /// A copy of `tokens`, where `device` reads them.
    ///
    /// # Errors
    /// The device has no memory left, or is lost.
    pub fn copy_of(device: &Device, tokens: &[u32]) -> Result<Self, DeviceError> {
        match device {
            Device::Cpu => Ok(Self::Host(Tokens::copy_of(tokens))),
            Device::Cuda(device) => device.upload(tokens).map(Self::Cuda),
        }
    }

    /// The device's ids.
    ///
    /// # Panics
    /// On the host.
    #[track_caller]
    pub fn cuda(&self) -> OnCuda<'_, u32> {
        match self {
            Self::Host(_) => panic!("a device's side of tokens that live on the host"),
            Self::Cuda(buffer) => buffer.view(),
        }
    }

    /// The host's ids.
    ///
    /// # Panics
    /// On a device.
    #[track_caller]
    pub fn host(&self) -> &[u32] {
        match self {
            Self::Host(tokens) => tokens,
            Self::Cuda(_) => panic!("the host's side of tokens that live on a device"),
        }
    }
}

/// Token ids, owned.
#[derive(Debug, PartialEq, Eq)]
pub struct Tokens(Vec<u32>);

impl Tokens {
    /// The tokens that `at` says, of positions from 0.
    ///
    /// # Errors
    /// The first that `at` returns.
    pub fn try_from_fn<E>(len: usize, mut at: impl FnMut(usize) -> Result<u32, E>) -> Result<Self, E> {
        let mut tokens = Self(pool::take(len));
        for (position, token) in tokens.0.iter_mut().enumerate() {
            *token = at(position)?;
        }
        Ok(tokens)
    }

    /// A copy of a slice.
    pub fn copy_of(tokens: &[u32]) -> Self {
        let mut copy = Self(pool::take(tokens.len()));
        copy.0.copy_from_slice(tokens);
        copy
    }
}

impl std::ops::Deref for Tokens {
    type Target = [u32];
    fn deref(&self) -> &[u32] {
        &self.0
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        pool::give(std::mem::take(&mut self.0));
    }
}

/// Axes of the highest tensor.
const RANK_MAX: usize = 2;

/// Values of a shape, borrowed.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Extents, slowest first.
    pub shape: &'a [usize],
    /// Values, row-major.
    pub data: Slice<'a>,
}

impl Tensor {
    /// A tensor of `shape` on the host that holds `data`.
    ///
    /// # Panics
    /// When the number of values contradicts the shape.
    pub fn new(shape: &[usize], data: Vec<f32>) -> Self {
        Self::with(shape, Values::Host(data))
    }

    /// A tensor that a kernel is about to write completely: until then its values are arbitrary.
    ///
    /// # Errors
    /// The device has no memory left, or is lost.
    pub fn unwritten(device: &Device, shape: &[usize]) -> Result<Self, DeviceError> {
        let len = shape.iter().product();
        let data = match device {
            Device::Cpu => Values::Host(pool::take(len)),
            Device::Cuda(device) => Values::Cuda(device.scratch(len)?),
        };
        Ok(Self::with(shape, data))
    }

    /// A tensor of the host that is about to be written completely.
    pub fn unwritten_on_host(shape: &[usize]) -> Self {
        Self::with(shape, Values::Host(pool::take(shape.iter().product())))
    }

    fn with(shape: &[usize], data: Values) -> Self {
        let expected: usize = shape.iter().product();
        assert_eq!(data.len(), expected, "tensor of shape {shape:?}: number of values");
        assert!(shape.len() <= RANK_MAX, "tensor of shape {shape:?}: at most {RANK_MAX} axes");
        let mut extents = [1; RANK_MAX];
        extents[..shape.len()].copy_from_slice(shape);
        Self { shape: extents, rank: shape.len(), data }
    }

    /// The tensor in host memory, copied there if it lives elsewhere.
    ///
    /// # Errors
    /// The device is lost.
    pub fn into_host(self) -> Result<Self, DeviceError> {
        match &self.data {
            Values::Host(_) => Ok(self),
            Values::Cuda(_) => Ok(Self::new(self.shape(), self.data.to_host()?.into_owned())),
        }
    }

    /// Extents, slowest first.
    pub fn shape(&self) -> &[usize] {
        &self.shape[..self.rank]
    }

    /// Number of values.
    pub fn len(&self) -> usize {
        self.data.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// Values, row-major, wherever they live.
    pub fn values(&self) -> Slice<'_> {
        self.data.all()
    }

    /// The host's values, row-major.
    ///
    /// # Panics
    /// On a device; likewise below.
    #[track_caller]
    pub fn data(&self) -> &[f32] {
        self.data.host()
    }

    /// The host's values, to be written.
    #[track_caller]
    pub fn data_mut(&mut self) -> &mut [f32] {
        match &mut self.data {
            Values::Host(values) => values,
            Values::Cuda(_) => panic!("the host's side of a tensor that lives on a device"),
        }
    }

    /// The device's values.
    ///
    /// # Panics
    /// On the host; likewise below.
    #[track_caller]
    pub fn cuda(&self) -> OnCuda<'_, f32> {
        self.data.all().cuda()
    }

    /// The device's values, to be written.
    #[track_caller]
    pub fn cuda_mut(&mut self) -> OnCudaMut<'_, f32> {
        match &mut self.data {
            Values::Host(_) => panic!("a device's side of a tensor that lives on the host"),
            Values::Cuda(buffer) => buffer.view_mut(),
        }
    }

    /// The extent of the fastest axis.
    pub fn cols(&self) -> usize {
        self.shape().last().copied().unwrap_or(1)
    }

    /// The product of all other extents.
    pub fn rows(&self) -> usize {
        self.shape().split_last().map_or(1, |(_, slower)| slower.iter().product())
    }

    /// Row `index`, on the host.
    #[track_caller]
    pub fn row(&self, index: usize) -> &[f32] {
        &self.data()[index * self.cols()..][..self.cols()]
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        if let Values::Host(values) = &mut self.data {
            pool::give(std::mem::take(values));
        }
    }
}
