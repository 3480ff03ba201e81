//! An output that several workers write, each its own elements.

/// The first element of the output.
#[derive(Clone, Copy)]
pub(crate) struct Target(*mut f32);

// SAFETY: a pointer is only dereferenced in `unsafe` code, which says why no two workers touch one element.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// The output behind a slice.
    pub(crate) fn of(values: &mut [f32]) -> Self {
        Self(values.as_mut_ptr())
    }

    /// The pointer to an element; a method, so that closures capture the whole `Target`.
    pub(crate) fn at(self, offset: usize) -> *mut f32 {
        self.0.wrapping_add(offset)
    }

    /// A part of the output.
    ///
    /// # Safety
    /// The elements are in the output, and nobody else touches them as long as the slice lives.
    pub(crate) unsafe fn slice<'a>(self, first: usize, len: usize) -> &'a mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(first), len) }
    }
}
