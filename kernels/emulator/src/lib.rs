//! A stand-in libcuda that executes PTX on the CPU
