//! Parallelism over outputs, the only kind the contract allows: tasks own disjoint outputs, and nothing is reduced
//! across them, so that the number of threads cannot show in a bit.

use rayon::iter::{IntoParallelIterator, ParallelIterator};

/// Below this many elementary operations a task list is run where it stands: waking workers costs more.
const SERIAL_WORK: usize = 1 << 16;

/// Runs `f` on every task, on the current rayon pool if `work` elementary operations in all are worth it.
pub(crate) fn run<T: Send>(work: usize, tasks: impl Iterator<Item = T>, f: impl Fn(T) + Send + Sync) {
    if work < SERIAL_WORK || rayon::current_num_threads() == 1 {
        tasks.for_each(f);
    } else {
        let tasks: Vec<T> = tasks.collect();
        tasks.into_par_iter().for_each(f);
    }
}
