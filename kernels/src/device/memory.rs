//! Memory of a device as launchers see it: owned, or a range of it.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, Range, RangeBounds};

use bytemuck::Pod;

use super::CudaDevice;

/// Memory of a device, owned. Dropped, it goes back to the device's arena, for what is queued next.
pub struct Buffer<T> {
    device: CudaDevice,
    address: u64,
    len: usize,
    of: PhantomData<T>,
}

/// A range of a device's memory, to be read.
pub struct View<'a, T> {
    address: u64,
    len: usize,
    of: PhantomData<&'a T>,
}

/// A range of a device's memory, to be written.
pub struct ViewMut<'a, T> {
    address: u64,
    len: usize,
    of: PhantomData<&'a mut T>,
}

/// Something that begins at an address of a device.
pub trait Placed {
    /// Where it begins.
    fn address(&self) -> u64;
}

impl<T> Buffer<T> {
    /// `len` elements of `device` from `address` on, which its arena has given out.
    pub(super) fn new(device: CudaDevice, address: u64, len: usize) -> Self {
        Self { device, address, len, of: PhantomData }
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The device whose memory it is.
    pub fn device(&self) -> &CudaDevice {
        &self.device
    }

    /// All of it, to be read.
    pub fn view(&self) -> View<'_, T> {
        View { address: self.address, len: self.len, of: PhantomData }
    }

    /// All of it, to be written.
    pub fn view_mut(&mut self) -> ViewMut<'_, T> {
        ViewMut { address: self.address, len: self.len, of: PhantomData }
    }

    /// The device, and all of its memory that this is.
    pub fn parts_mut(&mut self) -> (&CudaDevice, ViewMut<'_, T>) {
        (&self.device, ViewMut { address: self.address, len: self.len, of: PhantomData })
    }

    /// Some of it, to be read. Panics if `range` goes beyond the end.
    pub fn slice(&self, range: Range<usize>) -> View<'_, T> {
        self.view().slice(range)
    }

    /// Some of it, to be written. Panics if `range` goes beyond the end.
    pub fn slice_mut(&mut self, range: Range<usize>) -> ViewMut<'_, T> {
        let len = self.len;
        self.view_mut().part(within(len, range))
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        self.device.give(self.address, self.len * size_of::<T>());
    }
}

impl<T> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} x {})", self.len, std::any::type_name::<T>())
    }
}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

impl<'a, T> View<'a, T> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Some of it. Panics if `range` goes beyond the end.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> View<'a, T> {
        let range = within(self.len, range);
        View { address: offset::<T>(self.address, range.start), len: range.len(), of: PhantomData }
    }

    /// The same bytes as numbers of another type. Panics if they are no whole number of them, or begin where none can.
    pub fn cast<U: Pod>(&self) -> View<'a, U>
    where
        T: Pod,
    {
        let len = cast_len::<T, U>(self.address, self.len);
        View { address: self.address, len, of: PhantomData }
    }
}

impl<'a, T> ViewMut<'a, T> {
    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The same, only to be read.
    pub fn view(&self) -> View<'_, T> {
        View { address: self.address, len: self.len, of: PhantomData }
    }

    /// Some of it, only to be read. Panics if `range` goes beyond the end.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> View<'_, T> {
        self.view().slice(range)
    }

    /// Some of it, for a while. Panics if `range` goes beyond the end.
    pub fn slice_mut(&mut self, range: impl RangeBounds<usize>) -> ViewMut<'_, T> {
        let range = within(self.len, range);
        ViewMut { address: offset::<T>(self.address, range.start), len: range.len(), of: PhantomData }
    }

    /// What stands before `at`, and the rest. Panics if `at` is beyond the end.
    pub fn split_at_mut(&mut self, at: usize) -> (ViewMut<'_, T>, ViewMut<'_, T>) {
        let (first, second) = (within(self.len, ..at), within(self.len, at..));
        let part = |range: Range<usize>| ViewMut {
            address: offset::<T>(self.address, range.start),
            len: range.len(),
            of: PhantomData,
        };
        (part(first), part(second))
    }

    /// The same bytes as numbers of another type. Panics if they are no whole number of them, or begin where none can.
    pub fn cast_mut<U: Pod>(&mut self) -> ViewMut<'_, U>
    where
        T: Pod,
    {
        let len = cast_len::<T, U>(self.address, self.len);
        ViewMut { address: self.address, len, of: PhantomData }
    }

    fn part(self, range: Range<usize>) -> ViewMut<'a, T> {
        ViewMut { address: offset::<T>(self.address, range.start), len: range.len(), of: PhantomData }
    }
}

impl<T> fmt::Debug for View<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({} x {})", self.len, std::any::type_name::<T>())
    }
}

impl<T> fmt::Debug for ViewMut<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ViewMut({} x {})", self.len, std::any::type_name::<T>())
    }
}

impl<T> Placed for View<'_, T> {
    fn address(&self) -> u64 {
        self.address
    }
}

impl<T> Placed for ViewMut<'_, T> {
    fn address(&self) -> u64 {
        self.address
    }
}

fn offset<T>(address: u64, elements: usize) -> u64 {
    address + (elements * size_of::<T>()) as u64
}

#[track_caller]
fn within(len: usize, range: impl RangeBounds<usize>) -> Range<usize> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&before) => before + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&last) => last + 1,
        Bound::Excluded(&end) => end,
        Bound::Unbounded => len,
    };
    assert!(start <= end && end <= len, "{start}..{end} of {len} elements of a device");
    start..end
}

#[track_caller]
fn cast_len<T, U>(address: u64, len: usize) -> usize {
    let bytes = len * size_of::<T>();
    assert!(bytes.is_multiple_of(size_of::<U>()), "{bytes} bytes are no whole number of elements");
    let aligned = len == 0 || address.is_multiple_of(align_of::<U>() as u64);
    assert!(aligned, "a view begins where no such number can");
    bytes / size_of::<U>()
}
