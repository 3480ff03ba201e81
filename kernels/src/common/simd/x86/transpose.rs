//! Squares transposed in registers: 4 x 4 inside each 128-bit lane, then the lanes among each other.

use std::arch::x86_64::*;

/// 16 x 16.
///
/// # Safety
/// As [`super::super::Simd::transpose`].
#[target_feature(enable = "avx512f")]
#[inline]
pub(super) unsafe fn square_16(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
    // Lane n of quads[g][c] holds rows 4g..4g + 4 of column 4n + c.
    let mut quads = [[_mm512_setzero_ps(); 4]; 4];
    for (group, quad) in quads.iter_mut().enumerate() {
        // SAFETY: four of the sixteen rows, readable by contract.
        let row = |i: usize| unsafe { _mm512_loadu_ps(from.add((4 * group + i) * from_row)) };
        let (low, high) = (_mm512_unpacklo_ps(row(0), row(1)), _mm512_unpackhi_ps(row(0), row(1)));
        let (low2, high2) = (_mm512_unpacklo_ps(row(2), row(3)), _mm512_unpackhi_ps(row(2), row(3)));
        let pairs = [low, low2, high, high2].map(|x| _mm512_castps_pd(x));
        *quad = [
            _mm512_unpacklo_pd(pairs[0], pairs[1]),
            _mm512_unpackhi_pd(pairs[0], pairs[1]),
            _mm512_unpacklo_pd(pairs[2], pairs[3]),
            _mm512_unpackhi_pd(pairs[2], pairs[3]),
        ]
        .map(|x| _mm512_castpd_ps(x));
    }
    let mut columns = [_mm512_setzero_ps(); 16];
    for c in 0..4 {
        let [q0, q1, q2, q3] = quads.map(|quad| quad[c]);
        let (low, high) = (_mm512_shuffle_f32x4::<0x44>(q0, q1), _mm512_shuffle_f32x4::<0xEE>(q0, q1));
        let (low2, high2) = (_mm512_shuffle_f32x4::<0x44>(q2, q3), _mm512_shuffle_f32x4::<0xEE>(q2, q3));
        columns[c] = _mm512_shuffle_f32x4::<0x88>(low, low2);
        columns[4 + c] = _mm512_shuffle_f32x4::<0xDD>(low, low2);
        columns[8 + c] = _mm512_shuffle_f32x4::<0x88>(high, high2);
        columns[12 + c] = _mm512_shuffle_f32x4::<0xDD>(high, high2);
    }
    for (j, column) in columns.into_iter().enumerate() {
        // SAFETY: row j of the square, writable by contract.
        unsafe { _mm512_storeu_ps(to.add(j * to_row), column) };
    }
}

/// 8 x 8.
///
/// # Safety
/// As [`super::super::Simd::transpose`].
#[target_feature(enable = "avx2")]
#[inline]
pub(super) unsafe fn square_8(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
    let mut quads = [[_mm256_setzero_ps(); 4]; 2];
    for (group, quad) in quads.iter_mut().enumerate() {
        // SAFETY: four of the eight rows, readable by contract.
        let row = |i: usize| unsafe { _mm256_loadu_ps(from.add((4 * group + i) * from_row)) };
        let (low, high) = (_mm256_unpacklo_ps(row(0), row(1)), _mm256_unpackhi_ps(row(0), row(1)));
        let (low2, high2) = (_mm256_unpacklo_ps(row(2), row(3)), _mm256_unpackhi_ps(row(2), row(3)));
        let pairs = [low, low2, high, high2].map(|x| _mm256_castps_pd(x));
        *quad = [
            _mm256_unpacklo_pd(pairs[0], pairs[1]),
            _mm256_unpackhi_pd(pairs[0], pairs[1]),
            _mm256_unpacklo_pd(pairs[2], pairs[3]),
            _mm256_unpackhi_pd(pairs[2], pairs[3]),
        ]
        .map(|x| _mm256_castpd_ps(x));
    }
    let mut columns = [_mm256_setzero_ps(); 8];
    for c in 0..4 {
        let [q0, q1] = quads.map(|quad| quad[c]);
        columns[c] = _mm256_permute2f128_ps::<0x20>(q0, q1);
        columns[4 + c] = _mm256_permute2f128_ps::<0x31>(q0, q1);
    }
    for (j, column) in columns.into_iter().enumerate() {
        // SAFETY: row j of the square, writable by contract.
        unsafe { _mm256_storeu_ps(to.add(j * to_row), column) };
    }
}
