//! Working memory of kernels: buffers that a thread keeps between uses, because fresh pages cost more than most work done
//! in them.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// Bytes of a cache line: vectors of a buffer never straddle two.
const LINE: usize = 64;
const LINE_VALUES: usize = LINE / size_of::<f32>();

thread_local! {
    static KEPT: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
}

/// Values that are arbitrary until written, from the start of a cache line. Dropped, the buffer stays with its thread.
pub(crate) struct Scratch {
    buffer: Vec<f32>,
    first: usize,
    len: usize,
}

/// A buffer of `len` values.
pub(crate) fn take(len: usize) -> Scratch {
    let needed = len + LINE_VALUES;
    let kept = KEPT.with_borrow_mut(|kept| {
        // The smallest that is large enough, else the largest, which grows.
        let fits = |buffer: &&(usize, usize)| buffer.1 >= needed;
        let sizes = kept.iter().map(Vec::len).enumerate();
        let by_size = |buffer: &(usize, usize)| buffer.1;
        let best = sizes.clone().filter(|x| fits(&x)).min_by_key(by_size).or(sizes.max_by_key(by_size));
        best.map(|(index, _)| kept.swap_remove(index))
    });
    let mut buffer = kept.unwrap_or_default();
    if buffer.len() < needed {
        buffer.resize(needed, 0.0);
    }
    let first = buffer.as_ptr().align_offset(LINE);
    Scratch { buffer, first, len }
}

/// Buffers of several lengths in one, each from the start of a cache line.
pub(crate) struct Parts {
    whole: Scratch,
}

impl Parts {
    /// Room for parts of these lengths.
    pub(crate) fn take<const N: usize>(lengths: [usize; N]) -> Self {
        Self { whole: take(lengths.iter().map(|len| len.next_multiple_of(LINE_VALUES)).sum()) }
    }

    /// The parts, of the lengths that were asked for.
    pub(crate) fn split<const N: usize>(&mut self, lengths: [usize; N]) -> [&mut [f32]; N] {
        let mut rest: &mut [f32] = &mut self.whole;
        lengths.map(|len| {
            let (part, further) = std::mem::take(&mut rest).split_at_mut(len.next_multiple_of(LINE_VALUES));
            rest = further;
            &mut part[..len]
        })
    }
}

impl Deref for Scratch {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.buffer[self.first..self.first + self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.buffer[self.first..self.first + self.len]
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A buffer dropped while its thread ends finds no place any more and is simply freed.
        let _ = KEPT.try_with(|kept| kept.borrow_mut().push(std::mem::take(&mut self.buffer)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_begin_lines() {
        let (first, second) = (take(100), take(5000));
        assert!([&first, &second].iter().all(|buffer| buffer.as_ptr().align_offset(LINE) == 0));
        let (small, large) = (first.as_ptr(), second.as_ptr());
        drop(first);
        drop(second);
        let (again, other) = (take(90), take(4000));
        assert_eq!((again.as_ptr(), other.as_ptr()), (small, large));
        assert_eq!((again.len(), other.len()), (90, 4000));
    }

    #[test]
    fn parts_do_not_overlap() {
        let lengths = [3, 0, 17, 16];
        let mut parts = Parts::take(lengths);
        for (value, part) in parts.split(lengths).into_iter().enumerate() {
            part.fill(value as f32);
        }
        for (value, (part, len)) in parts.split(lengths).iter().zip(lengths).enumerate() {
            assert!(part.len() == len && part.iter().all(|x| *x == value as f32));
            assert_eq!(part.as_ptr().align_offset(LINE), 0);
        }
    }
}
