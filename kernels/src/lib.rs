//! The arithmetic: every op said once, done on CPU and CUDA, judged to the bit
