// Blocks of integers with a power-of-two scale: one warp takes one block of 128 elements, lane l elements 4l .. 4l+3.

#define BLOCK_ELEMENTS 128u
#define EXPONENT_MIN (-52)
#define EXPONENT_MAX 74
// What a status word says as long as nothing was wrong; a fault lowers it to where it stands.
#define NO_FAULT 0xffffffffu

__device__ __forceinline__ bool is_finite(const float x) {
    return (__float_as_uint(x) & 0x7f800000u) != 0x7f800000u;
}

__device__ __forceinline__ float to_code(const int bits, const int e) { return power_of_two(bits - 1 - e); }

__device__ __forceinline__ float from_code(const int bits, const int e) { return power_of_two(e - bits + 1); }

// rni(clamp(x * factor)) for finite x.
__device__ __forceinline__ int quantise(const float x, const float factor, const int bits) {
    const float largest = static_cast<float>((1 << (bits - 1)) - 1);
    float scaled = __fmul_rn(x, factor);
    scaled = scaled > largest ? largest : scaled;
    scaled = scaled < -largest ? -largest : scaled;
    return __float2int_rn(scaled);
}

// The largest of a warp's integers, in every lane.
__device__ __forceinline__ unsigned int warp_largest(unsigned int x) {
    #pragma unroll
    for (int apart = 16; apart > 0; apart >>= 1) x = max(x, __shfl_xor_sync(0xffffffffu, x, apart));
    return x;
}

__device__ __forceinline__ unsigned int magnitude(const float x) { return __float_as_uint(x) & 0x7fffffffu; }

// The exponent of a warp's block: magnitudes are ordered as their bits are, and NaN is above infinity.
__device__ __forceinline__ int block_exponent(const float4 v) {
    const unsigned int largest =
        warp_largest(max(max(magnitude(v.x), magnitude(v.y)), max(magnitude(v.z), magnitude(v.w))));
    return min(max(static_cast<int>(largest >> 23) - 126, EXPONENT_MIN), EXPONENT_MAX);
}

// Lowers the status to the first of four elements, of which `i` is the first, that is not finite.
__device__ __forceinline__ void report_non_finite(unsigned int* status, const unsigned int i, const float4 v) {
    if (!is_finite(v.x)) atomicMin(status, i);
    if (!is_finite(v.y)) atomicMin(status, i + 1u);
    if (!is_finite(v.z)) atomicMin(status, i + 2u);
    if (!is_finite(v.w)) atomicMin(status, i + 3u);
}

// The warp of this thread, and how many there are in the grid.
__device__ __forceinline__ unsigned int warp_of_grid() {
    return blockIdx.x * (blockDim.x / 32u) + threadIdx.x / 32u;
}
__device__ __forceinline__ unsigned int warps_of_grid() { return gridDim.x * (blockDim.x / 32u); }
