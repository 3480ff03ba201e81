//! Numbers where they live: in the host's memory, or in a device's.
//!
//! What reads and writes them goes through [`crate::ops`], which knows both places. Whoever asks for the host's side of
//! values that live on a device has a bug, and panics.

use kernels::device::{
    Buffer, CudaDevice, Device, DeviceError, Placed, View as OnCuda, ViewMut as OnCudaMut,
};
use std::borrow::Cow;
use std::ops::Range;

/// f32 values, owned.
#[derive(Debug)]
pub enum Values {
    /// In host memory.
    Host(Vec<f32>),
    /// In a device's memory.
    Cuda(Buffer<f32>),
}

/// f32 values, to be read.
#[derive(Debug, Clone, Copy)]
pub enum Slice<'a> {
    /// In host memory.
    Host(&'a [f32]),
    /// In a device's memory.
    Cuda(&'a CudaDevice, OnCuda<'a, f32>),
}

/// f32 values, to be written.
#[derive(Debug)]
pub enum SliceMut<'a> {
    /// In host memory.
    Host(&'a mut [f32]),
    /// In a device's memory.
    Cuda(&'a CudaDevice, OnCudaMut<'a, f32>),
}

impl Values {
    /// `len` times +0.
    ///
    /// # Errors
    /// The device has no memory left, or is lost.
    pub fn zeros(device: &Device, len: usize) -> Result<Self, DeviceError> {
        match device {
            Device::Cpu => Ok(Self::Host(vec![0.0; len])),
            Device::Cuda(device) => {
                let mut buffer = device.scratch(len)?;
                device.fill(0, &mut buffer.view_mut())?;
                Ok(Self::Cuda(buffer))
            }
        }
    }

    /// `host`, where `device` has its values.
    ///
    /// # Errors
    /// As [`Values::zeros`].
    pub fn of(device: &Device, host: Vec<f32>) -> Result<Self, DeviceError> {
        match device {
            Device::Cpu => Ok(Self::Host(host)),
            Device::Cuda(device) => device.upload(&host).map(Self::Cuda),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Host(values) => values.len(),
            Self::Cuda(buffer) => buffer.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All of them, to be read.
    pub fn all(&self) -> Slice<'_> {
        match self {
            Self::Host(values) => Slice::Host(values),
            Self::Cuda(buffer) => Slice::Cuda(buffer.device(), buffer.view()),
        }
    }

    /// All of them, to be written.
    pub fn all_mut(&mut self) -> SliceMut<'_> {
        match self {
            Self::Host(values) => SliceMut::Host(values),
            Self::Cuda(buffer) => {
                let (device, view) = buffer.parts_mut();
                SliceMut::Cuda(device, view)
            }
        }
    }

    /// All of them in host memory, copied there if they live elsewhere.
    ///
    /// # Errors
    /// The device is lost.
    pub fn to_host(&self) -> Result<Cow<'_, [f32]>, DeviceError> {
        match self {
            Self::Host(values) => Ok(Cow::Borrowed(values)),
            Self::Cuda(buffer) => buffer.device().download(&buffer.view()).map(Cow::Owned),
        }
    }

    /// Takes the values of `host`, of which there are as many, and stays where it is.
    ///
    /// # Errors
    /// The device is lost.
    pub fn overwrite(&mut self, host: Vec<f32>) -> Result<(), DeviceError> {
        assert_eq!(host.len(), self.len(), "values to be overwritten: number");
        match self {
            Self::Host(values) => *values = host,
            Self::Cuda(buffer) => {
                let (device, mut view) = buffer.parts_mut();
                device.write(&host, &mut view)?;
            }
        }
        Ok(())
    }

    /// The host's values.
    ///
    /// # Panics
    /// On a device.
    #[track_caller]
    pub fn host(&self) -> &[f32] {
        self.all().host()
    }
}

impl<'a> Slice<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Host(values) => values.len(),
            Self::Cuda(_, view) => view.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where they live.
    pub fn device(&self) -> Device {
        match self {
            Self::Host(_) => Device::Cpu,
            Self::Cuda(device, _) => Device::Cuda((*device).clone()),
        }
    }

    /// The addresses of their bytes.
    pub(crate) fn place(&self) -> Range<u64> {
        let start = match self {
            Self::Host(values) => values.as_ptr().addr() as u64,
            Self::Cuda(_, view) => view.address(),
        };
        start..start + 4 * self.len() as u64
    }

    /// Some of them. Panics if `range` goes beyond the end.
    pub fn range(&self, range: Range<usize>) -> Slice<'a> {
        match self {
            Self::Host(values) => Slice::Host(&values[range]),
            Self::Cuda(device, view) => Slice::Cuda(device, view.slice(range)),
        }
    }

    /// The host's values.
    ///
    /// # Panics
    /// On a device.
    #[track_caller]
    pub fn host(&self) -> &'a [f32] {
        match self {
            Self::Host(values) => values,
            Self::Cuda(..) => panic!("the host's side of values that live on a device"),
        }
    }

    /// The device's values.
    ///
    /// # Panics
    /// On the host.
    #[track_caller]
    pub fn cuda(&self) -> OnCuda<'a, f32> {
        match self {
            Self::Host(_) => panic!("a device's side of values that live on the host"),
            Self::Cuda(_, view) => *view,
        }
    }

    /// Hands `each` all of them, piece by piece.
    ///
    /// # Errors
    /// The device is lost.
    pub fn pieces(&self, mut each: impl FnMut(&[f32])) -> Result<(), DeviceError> {
        match self {
            Self::Host(values) => each(values),
            Self::Cuda(device, view) => device.read(view, each)?,
        }
        Ok(())
    }
}

impl SliceMut<'_> {
    /// Some of them, for a while. Panics if `range` goes beyond the end.
    pub fn range(&mut self, range: Range<usize>) -> SliceMut<'_> {
        match self {
            Self::Host(values) => SliceMut::Host(&mut values[range]),
            Self::Cuda(device, view) => SliceMut::Cuda(device, view.slice_mut(range)),
        }
    }

    /// The same, only to be read.
    pub fn as_slice(&self) -> Slice<'_> {
        match self {
            Self::Host(values) => Slice::Host(values),
            Self::Cuda(device, view) => Slice::Cuda(device, view.view()),
        }
    }

    /// The host's values.
    ///
    /// # Panics
    /// On a device.
    #[track_caller]
    pub fn host(&mut self) -> &mut [f32] {
        match self {
            Self::Host(values) => values,
            Self::Cuda(..) => panic!("the host's side of values that live on a device"),
        }
    }

    /// The device's values.
    ///
    /// # Panics
    /// On the host.
    #[track_caller]
    pub fn cuda(&mut self) -> OnCudaMut<'_, f32> {
        match self {
            Self::Host(_) => panic!("a device's side of values that live on the host"),
            Self::Cuda(_, view) => view.slice_mut(..),
        }
    }
}

impl<'a> From<&'a [f32]> for Slice<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::Host(values)
    }
}

impl<'a> From<&'a Vec<f32>> for Slice<'a> {
    fn from(values: &'a Vec<f32>) -> Self {
        Self::Host(values)
    }
}

impl<'a> From<&'a Values> for Slice<'a> {
    fn from(values: &'a Values) -> Self {
        values.all()
    }
}

impl<'a> From<&'a mut Vec<f32>> for SliceMut<'a> {
    fn from(values: &'a mut Vec<f32>) -> Self {
        Self::Host(values)
    }
}

impl<'a> From<&'a mut Values> for SliceMut<'a> {
    fn from(values: &'a mut Values) -> Self {
        values.all_mut()
    }
}
