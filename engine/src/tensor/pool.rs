//! Buffers kept between uses.
//!
//! A pass makes and drops the same sizes over and over. Handing megabytes back to the system and faulting them in again
//! page by page took a fifth of the CPU time of a 1 M model; so a dropped buffer waits here, on its thread, for the next
//! one of its size. After the first step of a training run none is asked of the system any more.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::thread::LocalKey;

/// Bytes that a thread keeps at most, per type of element.
const BYTES_MAX: usize = 1 << 30;

/// Buffers that wait, by their length.
pub struct Pool<T> {
    by_len: BTreeMap<usize, Vec<Vec<T>>>,
    bytes: usize,
}

/// A type of which buffers are kept.
pub trait Pooled: Copy + Default + 'static {
    /// The pool of the calling thread.
    fn pool() -> &'static LocalKey<RefCell<Pool<Self>>>;
}

macro_rules! pooled {
    ($($element:ty),*) => {$(
        impl Pooled for $element {
            fn pool() -> &'static LocalKey<RefCell<Pool<Self>>> {
                thread_local! {
                    static POOL: RefCell<Pool<$element>> =
                        const { RefCell::new(Pool { by_len: BTreeMap::new(), bytes: 0 }) };
                }
                &POOL
            }
        }
    )*};
}
pooled!(f32, u32);

/// A buffer of `len` elements, whichever they are.
pub fn take<T: Pooled>(len: usize) -> Vec<T> {
    let kept = T::pool().with_borrow_mut(|pool| {
        let buffer = pool.by_len.get_mut(&len)?.pop()?;
        pool.bytes -= size_of::<T>() * len;
        Some(buffer)
    });
    kept.unwrap_or_else(|| vec![T::default(); len])
}

/// Keeps a buffer, if there is room.
pub fn give<T: Pooled>(buffer: Vec<T>) {
    // A buffer dropped while its thread ends finds no pool any more and is simply freed.
    let _ = T::pool().try_with(|pool| {
        let mut pool = pool.borrow_mut();
        let bytes = size_of::<T>() * buffer.len();
        if !buffer.is_empty() && pool.bytes + bytes <= BYTES_MAX {
            pool.bytes += bytes;
            pool.by_len.entry(buffer.len()).or_default().push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_once_and_only_for_its_size() {
        let mut buffer = vec![0.0f32; 1001];
        buffer[7] = 1.0;
        let place = buffer.as_ptr();
        give(buffer);
        let (other, again, third) = (take::<f32>(1000), take::<f32>(1001), take::<f32>(1001));
        assert_ne!(other.as_ptr(), place);
        assert_eq!((again.as_ptr(), again[7]), (place, 1.0));
        assert_ne!(third.as_ptr(), place);
    }

    #[test]
    fn what_exceeds_the_bound_is_freed() {
        std::thread::spawn(|| {
            // Never written, so the system lends no memory for it.
            let all = BYTES_MAX / size_of::<f32>();
            give(vec![0.0f32; all]);
            give(vec![5.0f32; 3]);
            assert_eq!(take::<f32>(3), [0.0; 3]);
            drop(take::<f32>(all));
            give(vec![5.0f32; 3]);
            assert_eq!(take::<f32>(3), [5.0; 3]);
        })
        .join()
        .unwrap();
    }
}
