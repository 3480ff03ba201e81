//! The CPU path: each block of four words computed once, tasks in parallel.

use super::{Stream, reference::to_uniform};
use crate::common::parallel;
use rayon::prelude::*;

/// Elements of one task.
const TASK: usize = 1 << 12;
/// A uniform costs about this many elementary operations.
const WORK: usize = 8;

/// As [`super::uniform`].
pub fn uniform(stream: &Stream, first: u64, out: &mut [f32]) {
    parallel::run(WORK * out.len(), out.par_chunks_mut(TASK).enumerate(), |(task, out)| {
        let mut element = first + (task * TASK) as u64;
        let mut rest = out;
        while !rest.is_empty() {
            // The first block may be entered in its middle, the last one left there.
            let words = &stream.block(element / 4)[(element % 4) as usize..];
            let count = words.len().min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            for (x, word) in now.iter_mut().zip(words) {
                *x = to_uniform(*word);
            }
            element += count as u64;
            rest = later;
        }
    });
}

/// As [`super::normal`].
pub fn normal(stream: &Stream, first: u64, std: f32, out: &mut [f32]) {
    parallel::run(12 * WORK * out.len(), out.par_chunks_mut(TASK).enumerate(), |(task, out)| {
        for (i, x) in out.iter_mut().enumerate() {
            let block = 3 * (first + (task * TASK + i) as u64);
            let mut words = (0..3).flat_map(|b| stream.block(block + b));
            let start = words.next().map_or(0.0, to_uniform);
            *x = (words.fold(start, |sum, word| sum + to_uniform(word)) - 6.0) * std;
        }
    });
}
