//! The loops of the tall register tiles, in assembly: compilers reorder the broadcasts of so many rows until the chains
//! no longer fit the registers, and then run at half the speed.
//!
//! Each step of k loads two vectors of B and, for each row, broadcasts one element of A and updates the row's two chains.

use super::super::super::tile::{From, Operands, To};
use std::arch::{asm, x86_64::*};

/// Steps of k by which B is asked for from beyond the second-level cache.
const FAR: usize = 40;

/// One row's element of A into every lane, then its two chains.
macro_rules! row {
    ($x:literal, $address:literal, $first:literal, $second:literal, $b0:literal, $b1:literal) => {
        concat!(
            "vbroadcastss ",
            $x,
            ", dword ptr [",
            $address,
            "]\n",
            "vfmadd231ps ",
            $first,
            ", ",
            $x,
            ", ",
            $b0,
            "\n",
            "vfmadd231ps ",
            $second,
            ", ",
            $x,
            ", ",
            $b1,
        )
    };
}

/// Loads the chains, runs `$steps` on them, stores them.
macro_rules! tile {
    ($acc:ident: $ty:ty, $rows:literal, $lanes:literal, $zero:expr, $load:ident, $store:ident, $add:ident,
     $from:ident, $to:ident, $steps:expr) => {
        let mut $acc: [[$ty; 2]; $rows] = [[$zero; 2]; $rows];
        if let From::Chain(c, stride) = $from {
            for (i, row) in $acc.iter_mut().enumerate() {
                for (j, chain) in row.iter_mut().enumerate() {
                    // SAFETY: row i, vector j of the tile, readable by contract.
                    *chain = unsafe { $load(c.add(i * stride + j * $lanes)) };
                }
            }
        }
        $steps;
        for (i, row) in $acc.iter().enumerate() {
            for (j, chain) in row.iter().enumerate() {
                // SAFETY: row i, vector j of the tile, readable and writable by contract.
                unsafe {
                    match $to {
                        To::Store(c, stride) => $store(c.add(i * stride + j * $lanes), *chain),
                        To::Sum(x, c, stride) => {
                            let offset = i * stride + j * $lanes;
                            $store(c.add(offset), $add($load(x.add(offset)), *chain));
                        }
                    }
                }
            }
        }
    };
}

/// 14 rows of two vectors of 16: 28 chains, two vectors of B, two elements of A, all 32 registers.
///
/// # Safety
/// As [`super::super::Simd::tall_tile`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn tile_14(depth: usize, operands: Operands, from: From, to: To) {
    tile!(acc: __m512, 14, 16, _mm512_setzero_ps(), _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, from, to, {
        let [[c00, c01], [c10, c11], [c20, c21], [c30, c31], [c40, c41], [c50, c51], [c60, c61], [c70, c71],
             [c80, c81], [c90, c91], [ca0, ca1], [cb0, cb1], [cc0, cc1], [cd0, cd1]] = &mut acc;
        let row = 4 * operands.a_row;
        if depth > 0 {
            // SAFETY: reads step k of both operands for k < depth and nothing else, by contract; no stack, no write.
            unsafe {
                asm!(
                    "2:",
                    "vmovups zmm0, [{b}]",
                    "vmovups zmm1, [{b} + 64]",
                    "prefetcht0 [{b} + 8*{b_k}]",
                    "prefetcht0 [{b} + 8*{b_k} + 64]",
                    "prefetcht1 [{far}]",
                    "prefetcht1 [{far} + 64]",
                    row!("zmm2", "{a}", "zmm4", "zmm5", "zmm0", "zmm1"),
                    row!("zmm3", "{a} + {r}", "zmm6", "zmm7", "zmm0", "zmm1"),
                    row!("zmm2", "{a} + 2*{r}", "zmm8", "zmm9", "zmm0", "zmm1"),
                    row!("zmm3", "{a} + {r3}", "zmm10", "zmm11", "zmm0", "zmm1"),
                    row!("zmm2", "{a} + 4*{r}", "zmm12", "zmm13", "zmm0", "zmm1"),
                    row!("zmm3", "{a} + {r5}", "zmm14", "zmm15", "zmm0", "zmm1"),
                    row!("zmm2", "{a} + 2*{r3}", "zmm16", "zmm17", "zmm0", "zmm1"),
                    row!("zmm3", "{a7}", "zmm18", "zmm19", "zmm0", "zmm1"),
                    row!("zmm2", "{a7} + {r}", "zmm20", "zmm21", "zmm0", "zmm1"),
                    row!("zmm3", "{a7} + 2*{r}", "zmm22", "zmm23", "zmm0", "zmm1"),
                    row!("zmm2", "{a7} + {r3}", "zmm24", "zmm25", "zmm0", "zmm1"),
                    row!("zmm3", "{a7} + 4*{r}", "zmm26", "zmm27", "zmm0", "zmm1"),
                    row!("zmm2", "{a7} + {r5}", "zmm28", "zmm29", "zmm0", "zmm1"),
                    row!("zmm3", "{a7} + 2*{r3}", "zmm30", "zmm31", "zmm0", "zmm1"),
                    "add {a}, {a_k}",
                    "add {a7}, {a_k}",
                    "add {b}, {b_k}",
                    "add {far}, {b_k}",
                    "dec {depth}",
                    "jnz 2b",
                    a = inout(reg) operands.a => _,
                    a7 = inout(reg) operands.a.wrapping_add(7 * operands.a_row) => _,
                    b = inout(reg) operands.b => _,
                    far = inout(reg) operands.b.wrapping_add(FAR * operands.b_k) => _,
                    depth = inout(reg) depth => _,
                    r = in(reg) row,
                    r3 = in(reg) 3 * row,
                    r5 = in(reg) 5 * row,
                    a_k = in(reg) 4 * operands.a_k,
                    b_k = in(reg) 4 * operands.b_k,
                    out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _,
                    inout("zmm4") *c00, inout("zmm5") *c01, inout("zmm6") *c10, inout("zmm7") *c11,
                    inout("zmm8") *c20, inout("zmm9") *c21, inout("zmm10") *c30, inout("zmm11") *c31,
                    inout("zmm12") *c40, inout("zmm13") *c41, inout("zmm14") *c50, inout("zmm15") *c51,
                    inout("zmm16") *c60, inout("zmm17") *c61, inout("zmm18") *c70, inout("zmm19") *c71,
                    inout("zmm20") *c80, inout("zmm21") *c81, inout("zmm22") *c90, inout("zmm23") *c91,
                    inout("zmm24") *ca0, inout("zmm25") *ca1, inout("zmm26") *cb0, inout("zmm27") *cb1,
                    inout("zmm28") *cc0, inout("zmm29") *cc1, inout("zmm30") *cd0, inout("zmm31") *cd1,
                    options(nostack, readonly),
                );
            }
        }
    });
}

/// 6 rows of two vectors of 8: 12 chains, two vectors of B, two elements of A, all 16 registers.
///
/// # Safety
/// As [`super::super::Simd::tall_tile`].
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn tile_6(depth: usize, operands: Operands, from: From, to: To) {
    tile!(acc: __m256, 6, 8, _mm256_setzero_ps(), _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, from, to, {
        let [[c00, c01], [c10, c11], [c20, c21], [c30, c31], [c40, c41], [c50, c51]] = &mut acc;
        let row = 4 * operands.a_row;
        if depth > 0 {
            // SAFETY: reads step k of both operands for k < depth and nothing else, by contract; no stack, no write.
            unsafe {
                asm!(
                    "2:",
                    "vmovups ymm0, [{b}]",
                    "vmovups ymm1, [{b} + 32]",
                    row!("ymm2", "{a}", "ymm4", "ymm5", "ymm0", "ymm1"),
                    row!("ymm3", "{a} + {r}", "ymm6", "ymm7", "ymm0", "ymm1"),
                    row!("ymm2", "{a} + 2*{r}", "ymm8", "ymm9", "ymm0", "ymm1"),
                    row!("ymm3", "{a} + {r3}", "ymm10", "ymm11", "ymm0", "ymm1"),
                    row!("ymm2", "{a} + 4*{r}", "ymm12", "ymm13", "ymm0", "ymm1"),
                    row!("ymm3", "{a} + {r5}", "ymm14", "ymm15", "ymm0", "ymm1"),
                    "add {a}, {a_k}",
                    "add {b}, {b_k}",
                    "dec {depth}",
                    "jnz 2b",
                    a = inout(reg) operands.a => _,
                    b = inout(reg) operands.b => _,
                    depth = inout(reg) depth => _,
                    r = in(reg) row,
                    r3 = in(reg) 3 * row,
                    r5 = in(reg) 5 * row,
                    a_k = in(reg) 4 * operands.a_k,
                    b_k = in(reg) 4 * operands.b_k,
                    out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _,
                    inout("ymm4") *c00, inout("ymm5") *c01, inout("ymm6") *c10, inout("ymm7") *c11,
                    inout("ymm8") *c20, inout("ymm9") *c21, inout("ymm10") *c30, inout("ymm11") *c31,
                    inout("ymm12") *c40, inout("ymm13") *c41, inout("ymm14") *c50, inout("ymm15") *c51,
                    options(nostack, readonly),
                );
            }
        }
    });
}
