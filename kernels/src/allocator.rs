//! The system's allocator, with large blocks at the start of a cache line.
//!
//! Large blocks are what vectors run over. From where the system puts them, 16 bytes into a page, every vector of 64
//! bytes straddles two lines; a training step is 5 to 10 % slower then. A program takes it with
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: kernels::allocator::LineAligned = kernels::allocator::LineAligned;
//! ```

use std::alloc::{GlobalAlloc, Layout, System};

/// The allocator.
pub struct LineAligned;

/// Bytes of a cache line.
const LINE: usize = 64;
/// Bytes from which a block is large.
const LARGE: usize = 4096;

/// The layout that the system is asked for: a function of the block's own, so that freeing finds the same.
fn asked(layout: Layout) -> Layout {
    if layout.size() < LARGE {
        return layout;
    }
    layout.align_to(LINE).unwrap_or(layout)
}

// SAFETY: the system's allocator does the work; a block is asked for and freed with the same layout, of the same size as
// the caller's and at least its alignment.
unsafe impl GlobalAlloc for LineAligned {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller promises a size that is not 0.
        unsafe { System.alloc(asked(layout)) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(asked(layout)) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller promises a block that was allocated here with this layout.
        unsafe { System.dealloc(block, asked(layout)) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `size` is not 0 and, rounded up, fits.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if asked(layout).align() == asked(wanted).align() {
            // SAFETY: as for `dealloc`.
            return unsafe { System.realloc(block, asked(layout), size) };
        }
        // Small to large or back: another alignment, so a move.
        // SAFETY: both blocks are of the layouts that they are allocated, copied and freed with, and do not overlap.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                std::ptr::copy_nonoverlapping(block, moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_blocks_begin_lines_and_keep_their_values() {
        let layout = |size| Layout::array::<u8>(size).unwrap();
        // SAFETY: sizes are not 0; each block is resized and freed with the layout it has.
        unsafe {
            let mut block = LineAligned.alloc(layout(100));
            block.write_bytes(7, 100);
            let mut size = 100;
            for next in [5000, 1 << 20, 4097, 50] {
                block = LineAligned.realloc(block, layout(size), next);
                size = next;
                assert!((0..50).all(|i| *block.add(i) == 7));
                assert!(size < LARGE || block.align_offset(LINE) == 0, "{size} bytes");
            }
            LineAligned.dealloc(block, layout(size));
            let zeroed = LineAligned.alloc_zeroed(layout(1 << 16));
            assert!(zeroed.align_offset(LINE) == 0 && (0..1 << 16).all(|i| *zeroed.add(i) == 0));
            LineAligned.dealloc(zeroed, layout(1 << 16));
        }
    }
}
