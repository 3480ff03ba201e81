//! Who computes: the pool's threads, or the one that drives an engine.

/// Where one thread is to compute, makes it the calling one. A thread outside of the pool hands every single op over and
/// sleeps until it is done, which wakes two threads an op: on cores that several processes share it cost a tenth of the CPU
/// time. With more threads nothing changes: what they gain by it they lose by going to sleep between two ops.
///
/// # Errors
/// The system gives no thread.
pub fn compute_here() -> Result<(), rayon::ThreadPoolBuildError> {
    compute(rayon::current_num_threads())
}

fn compute(threads: usize) -> Result<(), rayon::ThreadPoolBuildError> {
    if rayon::current_thread_index().is_some() || threads > 1 {
        return Ok(());
    }
    // The pool is this thread's, and as old as it gets.
    rayon::ThreadPoolBuilder::new().num_threads(1).use_current_thread().build().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_to_compute_alone_does() {
        let computes_itself = |threads: usize| {
            let asked = std::thread::spawn(move || {
                compute(threads).unwrap();
                compute(threads).unwrap();
                let me = std::thread::current().id();
                rayon::join(|| std::thread::current().id() == me, || std::thread::current().id() == me)
            });
            asked.join().unwrap() == (true, true)
        };
        assert!(computes_itself(1));
        assert!(!computes_itself(2), "it hands over to those of the pool");
    }
}
