// R128, the row reduction of the arithmetic contract, as one warp does it.
//
// 128 accumulators: element i belongs to accumulator i mod 128. Lane l of the warp holds the accumulators
// 4l .. 4l+3 as one float4, so that a row is read in 16-byte pieces. This text is put in front of a room's
// source by its launcher; there is no #include, so that users need NVRTC alone and no headers.

#define WARP_LANES 32u
#define ALL_LANES 0xffffffffu
// Elements in one pass of a warp over a row: 32 lanes of four.
#define PASS 128u
// Rows longer than this are reduced in pieces, whose sums are added in ascending order.
#define R128_CHUNK 16384u

// The tree at the end of R128. Every lane returns the same bits: addition commutes, so that s[l] + s[l ^ 16]
// is the halving step s[l] += s[l + 16] seen from either side.
__device__ __forceinline__ float r128_fold(const float4 a) {
    float s = __fadd_rn(__fadd_rn(a.x, a.y), __fadd_rn(a.z, a.w));
    #pragma unroll
    for (int apart = 16; apart > 0; apart >>= 1) {
        s = __fadd_rn(s, __shfl_xor_sync(ALL_LANES, s, apart));
    }
    return s;
}

// Four products into the four accumulators of this lane.
__device__ __forceinline__ void r128_fma(float4& a, const float4 x, const float4 y) {
    a.x = __fmaf_rn(x.x, y.x, a.x);
    a.y = __fmaf_rn(x.y, y.y, a.y);
    a.z = __fmaf_rn(x.z, y.z, a.z);
    a.w = __fmaf_rn(x.w, y.w, a.w);
}
