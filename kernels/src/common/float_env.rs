//! The floating-point environment. Flush-to-zero or another rounding mode, set by some library in the same process,
//! would change results without a word; so every worker that computes asserts the environment first.

/// Panics unless this thread rounds to nearest even and keeps subnormals, with all exceptions masked.
#[inline]
pub fn assert_default() {
    let (found, expected) = control();
    assert!(
        found == expected,
        "floating-point control of this thread is {found:#06x}, expected {expected:#06x}: \
         a library in this process changed rounding or flushes subnormals"
    );
}

/// A pool of `threads` workers that assert the environment when they start; 0 means one per core.
///
/// # Errors
/// If the operating system refuses a thread.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool, rayon::ThreadPoolBuildError> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("kernels-{i}"))
        .start_handler(|_| assert_default())
        .build()
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn control() -> (u64, u64) {
    /// Sticky exception flags: they say what happened, not how to compute.
    const FLAGS: u32 = 0x3F;
    let mut mxcsr = 0u32;
    // SAFETY: stmxcsr writes four bytes to the address of a live u32.
    unsafe {
        std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut mxcsr, options(nostack, preserves_flags));
    }
    (u64::from(mxcsr & !FLAGS), 0x1F80)
}

#[cfg(target_arch = "aarch64")]
#[inline]
fn control() -> (u64, u64) {
    /// FZ16, rounding mode, FZ, DN: bits 19, 22..=25.
    const MODE: u64 = 0x03C8_0000;
    let fpcr: u64;
    // SAFETY: reading FPCR has no effect.
    unsafe {
        std::arch::asm!("mrs {}, fpcr", out(reg) fpcr, options(nomem, nostack, preserves_flags));
    }
    (fpcr & MODE, 0)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
#[inline]
fn control() -> (u64, u64) {
    (0, 0)
}
