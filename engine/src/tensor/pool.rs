//! Buffers kept between uses.
//!
//! A pass makes and drops the same sizes over and over. Handing megabytes back to the system and faulting them in again
//! page by page took a fifth of the CPU time of a 1 M model; so a dropped tensor's buffer waits here, on its thread, for
//! the next tensor of its size.

use std::cell::RefCell;
use std::collections::BTreeMap;

/// A thread keeps at most 2^26 values, 256 MiB; where buffers are larger, computing outweighs faulting.
const VALUES_MAX: usize = 1 << 26;

#[derive(Default)]
struct Pool {
    by_len: BTreeMap<usize, Vec<Vec<f32>>>,
    values: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// A buffer of `len` values, whichever they are.
pub fn take(len: usize) -> Vec<f32> {
    let kept = POOL.with_borrow_mut(|pool| {
        let buffer = pool.by_len.get_mut(&len)?.pop()?;
        pool.values -= len;
        Some(buffer)
    });
    kept.unwrap_or_else(|| vec![0.0; len])
}

/// Keeps a buffer, if there is room.
pub fn give(buffer: Vec<f32>) {
    // A tensor dropped while its thread ends finds no pool any more and is simply freed.
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if !buffer.is_empty() && pool.values + buffer.len() <= VALUES_MAX {
            pool.values += buffer.len();
            pool.by_len.entry(buffer.len()).or_default().push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_once_and_only_for_its_size() {
        let mut buffer = vec![0.0; 1001];
        buffer[7] = 1.0;
        let place = buffer.as_ptr();
        give(buffer);
        let (other, again, third) = (take(1000), take(1001), take(1001));
        assert_ne!(other.as_ptr(), place);
        assert_eq!((again.as_ptr(), again[7]), (place, 1.0));
        assert_ne!(third.as_ptr(), place);
    }

    #[test]
    fn what_exceeds_the_bound_is_freed() {
        std::thread::spawn(|| {
            give(vec![0.0; VALUES_MAX]);
            give(vec![5.0; 3]);
            assert_eq!(take(3), [0.0; 3]);
            drop(take(VALUES_MAX));
            give(vec![5.0; 3]);
            assert_eq!(take(3), [5.0; 3]);
        })
        .join()
        .unwrap();
    }
}
