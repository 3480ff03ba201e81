//! The system's allocator, with large blocks at the start of a cache line and huge ones on huge pages.
//!
//! Large blocks are what vectors run over. From where the system puts them, 16 bytes into a page, every vector of 64
//! bytes straddles two lines; a training step is 5 to 10 % slower then. Huge blocks are states, contributions and files of
//! them: on pages of 4 KiB the kernel is entered for each page of a new block, which costs more than to fill it; on
//! pages of 2 MiB it is not worth a word. Linux gives these where it is asked (`transparent_hugepage` of `madvise`,
//! the usual setting); elsewhere and otherwise nothing changes. A program takes it with
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

/// Bytes of a huge page.
const PAGE: usize = 2 << 20;
/// Bytes from which a block is huge: what its last page wastes is then a small part of it.
const HUGE: usize = 4 * PAGE;

/// The layout that the system is asked for: a function of the block's own, so that freeing finds the same.
fn asked(layout: Layout) -> Layout {
    let align = match layout.size() {
        ..LARGE => return layout,
        LARGE..HUGE => LINE,
        HUGE.. => PAGE,
    };
    layout.align_to(align).unwrap_or(layout)
}

/// Asks for huge pages under a new block, before anything is written to it.
fn advise(block: *mut u8, size: usize) {
    #[cfg(target_os = "linux")]
    if size >= HUGE && !block.is_null() {
        // SAFETY: the block is ours, begins a page as `asked` wants, and advice changes no byte of it. That it is not
        // taken is no failure.
        unsafe { libc::madvise(block.cast(), size, libc::MADV_HUGEPAGE) };
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (block, size);
}

// SAFETY: the system's allocator does the work; a block is asked for and freed with the same layout, of the same size as
// the caller's and at least its alignment.
unsafe impl GlobalAlloc for LineAligned {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller promises a size that is not 0.
        let block = unsafe { System.alloc(asked(layout)) };
        advise(block, layout.size());
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() < HUGE {
            // SAFETY: the caller promises a size that is not 0.
            return unsafe { System.alloc_zeroed(asked(layout)) };
        }
        // The system would write the zeros before the advice.
        // SAFETY: as above; a block that is not null has `size` bytes.
        unsafe {
            let block = self.alloc(layout);
            if !block.is_null() {
                block.write_bytes(0, layout.size());
            }
            block
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller promises a block that was allocated here with this layout.
        unsafe { System.dealloc(block, asked(layout)) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that `size` is not 0 and, rounded up, fits.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if asked(layout).align() == asked(wanted).align() && size < HUGE {
            // SAFETY: as for `dealloc`.
            return unsafe { System.realloc(block, asked(layout), size) };
        }
        // Another alignment, or new pages to give advice for: a move.
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
            for next in [5000, 1 << 20, 9 << 20, 17 << 20, 4097, 50] {
                block = LineAligned.realloc(block, layout(size), next);
                size = next;
                assert!((0..50).all(|i| *block.add(i) == 7));
                assert!(size < LARGE || block.align_offset(LINE) == 0, "{size} bytes");
                assert!(size < HUGE || block.align_offset(PAGE) == 0, "{size} bytes");
            }
            LineAligned.dealloc(block, layout(size));
            for size in [1 << 16, HUGE + 1] {
                let zeroed = LineAligned.alloc_zeroed(layout(size));
                assert!(zeroed.align_offset(LINE) == 0 && (0..size).all(|i| *zeroed.add(i) == 0));
                LineAligned.dealloc(zeroed, layout(size));
            }
        }
    }
}
