//! A stand-in libcuda that executes PTX on the CPU, so that CUDA C++, NVRTC, module loading and launches are all
//! tried on machines without a GPU. Programs never know: they open it by path like any driver. What ran here is
//! called *emulated*, never fast and never a proof about hardware.
//!
//! # Putting it in a program's way
//!
//! The driver is found by name, and NVRTC opens it a second time by itself; so its place must be on the library
//! path before the process starts. `cargo xtask emulated -- <command>` does that:
//!
//! 1. build this package; the library is `target/release/libcuda_emulator.so`, its SONAME `libcuda.so.1`;
//! 2. lay it into a directory of its own, `target/emulated/`, under both names programs ask for,
//!    `libcuda.so` and `libcuda.so.1` (links or copies);
//! 3. start the command with that directory first in `LD_LIBRARY_PATH`, NVRTC's after it.
//!
//! # What the environment says
//!
//! | variable | meaning | without it |
//! |---|---|---|
//! | `IOTA_EMULATED_SM` | compute capability: 75, 80, 86, 89, 90, 100, 120 | 86 |
//! | `IOTA_EMULATED_DEVICES` | how many devices there are, all alike, which share one memory within a process; of none `cuInit` tells | 1 |
//! | `IOTA_EMULATED_CHECK` | 1 runs every kernel checked | 0 |
//! | `IOTA_EMULATED_MEMORY_MIB` | device memory in MiB | 16384 |
//! | `IOTA_EMULATED_COUNTERS` | a file that takes one line of JSON per launch: instructions by class, sectors of device memory, wavefronts of shared memory | nothing is counted |
//! | `IOTA_EMULATED_JUMPS` | how often a warp may jump back in one launch before it is taken to run for ever | 2^30 |
//! | `IOTA_EMULATED_DRIVER` | CUDA version the driver serves; newer PTX is refused | 12.9 |
//! | `IOTA_EMULATED_FAULTS` | what goes wrong on purpose, with commas between: `allocation:N` finds the memory full, `launch:N` is refused, the kernel of `sticky:N` faults, with `lost:N` the device is gone for good | nothing |
//! | `RAYON_NUM_THREADS` | threads that run blocks | one per core |
//!
//! # What is found
//!
//! | fault | when |
//! |---|---|
//! | shared, local or parameter memory out of bounds; null pointers; misaligned access | always |
//! | warps or blocks that wait for threads who never come | always |
//! | device memory outside every allocation, red zones between them | checked |
//! | a barrier that some threads pass by | checked |
//! | warps that race on shared memory between two barriers | checked |
//! | device or shared memory read that was never written | checked; unwritten memory holds not-a-numbers, so that it shows |
//! | a warp that jumps back without end | always |
//! | a missing `cp.async` wait | reads old data: copies land at their wait |
//! | memory never freed, when the context is wound up or the process ends | checked |
//!
//! A fault is reported on stderr with kernel, block, thread, PTX line and, with `--generate-line-info`, the CUDA
//! source line; the calls that follow the launch answer its error. An opcode this emulator does not implement,
//! and one the arithmetic contract forbids (`.ftz`, `.approx`, contractible arithmetic, floating-point
//! atomics), fails when the module is loaded, with its line.
//!
//! # How it runs
//!
//! [`ptx`] reads text and puts device functions in the place of their calls, [`exec`] decodes it once and runs it, [`api`] is the driver. A warp's register is an array
//! of 32 lanes and an instruction one vectorised loop over it, so a core does more than 10^9 fused
//! multiply-adds a second where it has FMA (elsewhere they are as right and far slower). Results depend on
//! neither the number of threads nor their timing, unless a kernel's own blocks race.
//!
//! What a training step costs (two blocks of width 64, 128 tokens, every check on) is printed by
//!
//! ```text
//! cargo xtask emulated -- cargo test --release -p engine --test cuda -- a_step_under_every_check --show-output
//! ```
//!
//! On a machine of two cores that had other work as well: 0.22 seconds of processors, over two threads, where
//! activations are kept, 0.25 where they are computed again.

pub mod api;
pub mod exec;
pub mod ptx;
