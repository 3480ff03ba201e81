//! A training step asks the system for no memory once the first ones have run.

use engine::synthetic::{Size, Synthetic, on_threads};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Alone in its process: another test's allocations would be counted too. One thread, because which worker meets which
/// task for the first time is chance on more.
#[test]
fn a_step_allocates_nothing_after_the_first_ones() {
    // Several blocks, tokens for several blocks of k and of keys, an edge in every product.
    let size =
        Size { name: "allocation", dim: 96, blocks: 2, heads: 4, ffn: 200, vocab: 300, seq: 150, batch: 3 };
    let counts = on_threads(1, || {
        let mut model = Synthetic::new(&size).unwrap();
        let mut count = || {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            model.forward().unwrap();
            model.backward().unwrap();
            model.update().unwrap();
            ALLOCATIONS.load(Ordering::Relaxed) - before
        };
        [(); 5].map(|()| count())
    })
    .unwrap();
    assert!(counts[0] > 0, "the counter counts");
    assert_eq!(counts[2..], [0; 3], "allocations of the steps: {counts:?}");
}
