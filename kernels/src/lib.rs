//! The arithmetic: every op said once, done on CPU and CUDA, judged to the bit.
//!
//! One folder is one op, a *room*: `mod.rs` says formula, shapes, cost and entry points; `cpu.rs` is the fast path;
//! `reference.rs` is the plain loop that can be held against the formula by eye; `cases.rs` says on which shapes and
//! inputs the two must agree; `tests.rs` holds what is peculiar to the op. The order of every floating-point operation
//! is part of the interface and stands in `kernels/ARITHMETIC.md`.
//!
//! Entry points work on plain slices. Inputs travel in an `Args` struct, outputs are `&mut` slices behind it. A length
//! that contradicts the stated shape is a bug of the caller and panics with the names and numbers involved; NaN and
//! infinity are legal outcomes and flow through.
//!
//! | room | entry points | writes |
//! |---|---|---|
//! | [`embedding`] | `forward(&Forward, y)`, `backward(&Backward, dtable)` | `y =`, `dtable +=` |
//! | [`rms_norm`] | `forward(&Forward, y, r)`, `backward(&Backward, dx, dw)`, `backward_add(..)` | `y, r, dx =`, `dw +=`; `dx +=` |
//! | [`matmul`] | `nn(&Matmul, c)`, `nt(&Matmul, c)`, `tn(&Matmul, c)`, `nn_add(&Matmul, c)`, `nt_add(&Matmul, x, c)` | `c =`, `c =`, `c +=`, `c +=`, `c = x +` |
//! | [`rope`] | `tables(seq, head_dim, theta, scaling)`, `forward(&Rope, y)`, `backward(&Rope, dx)` | `=` |
//! | [`attention`] | `forward(&Forward, o, m, l)`, `backward(&Backward, dq, dk, dv)` | `=` |
//! | [`swiglu`] | `forward(&Forward, h)`, `backward(&Backward, dg, du)` | `=` |
//! | [`residual`] | `add(a, b, y)`, `accumulate(sum, x)` | `=`, `+=` |
//! | [`cross_entropy`] | `forward(&Forward, loss, dlogits)`, `forward_in_place(..)`, `mean_q32(loss)` | `=` |
//! | [`reduce`] | `sum_squares(g)`, `global_norm(sums)`, `stage_clip(..)`, `clip_scale(norm, clip)` | returns |
//! | [`adamw`] | `BiasCorrection`, `Constants::new(..)`, `step(&Step, p, m, v)` | in place |
//! | [`philox`] | `block(..)`, `uniform(&Stream, first, out)`, `normal(&Stream, first, std, out)` | `=` |
//! | [`codec`] | `encode(format, x, bytes)`, `encode_with_feedback(..)`, `decode(format, bytes, y)` | `=` |
//! | [`merge`] | `exponents(..)`, `share_exponents(..)`, `contribute(..)`, `accumulate(..)`, `outer_step(..)` | see room |
//!
//! # On a CUDA device
//!
//! Each room's `cuda` module has the same entry points on views of device memory; they queue work on the device's stream
//! and return. Nothing is allocated or copied on the way: what a kernel needs besides its arguments is a workspace whose
//! size `workspace_len` says. Where the CPU side returns an error, the device lowers a status word ([`codec::cuda`]).
//! Some ops end in another's arithmetic and save a pass over memory, at the same bits: `matmul::cuda::{nn_onto, nt_onto}`
//! in the residual sum, `matmul::cuda::gated` in SwiGLU, `rms_norm::cuda::{forward_of_sum, backward_onto}` in the residual
//! stream's step, and `adamw::cuda::step` takes the clip scale from where `reduce::cuda::clip_scale` put it.

pub mod adamw;
pub mod allocator;
pub mod attention;
pub mod catalogue;
pub mod codec;
pub mod common;
pub mod cross_entropy;
pub mod device;
pub mod embedding;
pub mod matmul;
pub mod merge;
pub mod philox;
pub mod probe;
pub mod reduce;
pub mod residual;
pub mod rms_norm;
pub mod rope;
pub mod swiglu;

pub use common::simd::SimdPath;
