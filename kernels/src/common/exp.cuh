// The exponentials of the arithmetic contract. No library's: each of those has bits of its own.

// Added to a small float it leaves the nearest integer in the low bits.
#define MAGIC 12582912.0f

// v * 2^i in two steps, so that neither factor leaves the normal range.
__device__ __forceinline__ float scale_twice(const float v, const int i) {
    const int half = i >> 1;
    return __fmul_rn(__fmul_rn(v, power_of_two(half)), power_of_two(i - half));
}

// e^x. Where x is out of range the polynomial is nonsense and not taken; a NaN is neither above nor below and flows
// through it.
__device__ __forceinline__ float contract_exp(const float x) {
    const float t = __fmaf_rn(x, 0x1.715476p+0f, MAGIC);
    const float n = __fsub_rn(t, MAGIC);
    const float r = __fmaf_rn(n, -0x1.7f7d1cp-20f, __fmaf_rn(n, -0x1.62e4p-1f, x));
    float v = 0x1.6a2416p-10f;
    v = __fmaf_rn(v, r, 0x1.1239f6p-7f);
    v = __fmaf_rn(v, r, 0x1.5558f2p-5f);
    v = __fmaf_rn(v, r, 0x1.555492p-3f);
    v = __fmaf_rn(v, r, 0x1.fffffcp-2f);
    v = __fmaf_rn(v, r, 1.0f);
    v = __fmaf_rn(v, r, 1.0f);
    v = scale_twice(v, __float_as_int(t) - __float_as_int(MAGIC));
    v = x < -87.3365f ? 0.0f : v;
    return x > 88.72283f ? __int_as_float(0x7f800000) : v;
}

// 2^x for x <= 0.
__device__ __forceinline__ float contract_exp2p(const float x) {
    const float t = __fadd_rn(x, MAGIC);
    const float f = __fsub_rn(x, __fsub_rn(t, MAGIC));
    float v = 0x1.416b5ep-13f;
    v = __fmaf_rn(v, f, 0x1.5f0830p-10f);
    v = __fmaf_rn(v, f, 0x1.3b2de0p-7f);
    v = __fmaf_rn(v, f, 0x1.c6af7cp-5f);
    v = __fmaf_rn(v, f, 0x1.ebfbdcp-3f);
    v = __fmaf_rn(v, f, 0x1.62e430p-1f);
    v = __fmaf_rn(v, f, 1.0f);
    v = scale_twice(v, __float_as_int(t) - __float_as_int(MAGIC));
    return x < -126.0f ? 0.0f : v;
}

// The one maximum of the contract: with a NaN on either side it is b.
__device__ __forceinline__ float contract_max(const float a, const float b) { return a > b ? a : b; }
