//! Parallelism over outputs, the only kind the contract allows: tasks own disjoint outputs, and nothing is reduced
//! across them, so that the number of threads cannot show in a bit.

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

/// Below this many elementary operations a task list is run where it stands: waking workers costs more.
pub(crate) const SERIAL_WORK: usize = 1 << 16;

/// Runs `f` on every task, on the current rayon pool if `work` elementary operations in all are worth it. Nothing is
/// allocated.
pub(crate) fn run<T: Send>(
    work: usize,
    tasks: impl IndexedParallelIterator<Item = T>,
    f: impl Fn(T) + Send + Sync,
) {
    if work < SERIAL_WORK {
        let all = tasks.len().max(1);
        tasks.with_min_len(all).for_each(f);
    } else {
        tasks.for_each(f);
    }
}

/// The same for tasks known by their number, of which there are `count`.
pub(crate) fn indices(work: usize, count: usize, f: impl Fn(usize) + Send + Sync) {
    if work < SERIAL_WORK || rayon::current_num_threads() == 1 {
        (0..count).for_each(f);
    } else {
        (0..count).into_par_iter().for_each(f);
    }
}

/// Tasks worth having: some per worker, so that a slow one does not hold up the rest.
pub(crate) fn tasks_wanted() -> usize {
    match rayon::current_num_threads() {
        1 => 1,
        workers => 6 * workers,
    }
}
