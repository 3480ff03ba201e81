// What most rooms share: four floats at a time, loops over arrays, exact scales. This text is put in front of a room's
// source by its launcher.

// 2^e, for e in -126..=127.
__device__ __forceinline__ float power_of_two(const int e) { return __int_as_float((e + 127) << 23); }

__device__ __forceinline__ float4 splat(const float x) { return make_float4(x, x, x, x); }

__device__ __forceinline__ float4 add4(const float4 a, const float4 b) {
    return make_float4(__fadd_rn(a.x, b.x), __fadd_rn(a.y, b.y), __fadd_rn(a.z, b.z), __fadd_rn(a.w, b.w));
}

__device__ __forceinline__ float4 mul4(const float4 a, const float4 b) {
    return make_float4(__fmul_rn(a.x, b.x), __fmul_rn(a.y, b.y), __fmul_rn(a.z, b.z), __fmul_rn(a.w, b.w));
}

__device__ __forceinline__ float4 fma4(const float4 a, const float4 b, const float4 c) {
    return make_float4(__fmaf_rn(a.x, b.x, c.x), __fmaf_rn(a.y, b.y, c.y), __fmaf_rn(a.z, b.z, c.z),
                       __fmaf_rn(a.w, b.w, c.w));
}

// Whether all begin on 16 bytes: a view into a larger array may begin anywhere, and only one that does not is read
// element by element.
template <typename... Elements>
__device__ __forceinline__ bool vectors(const Elements*... begin) {
    return ((reinterpret_cast<unsigned long long>(begin) | ...) & 15u) == 0u;
}

// Four elements of a row from `i` on, of which those from `end` on are `pad`. With VECTOR the row begins on 16 bytes
// and its length is a multiple of four.
template <bool VECTOR>
__device__ __forceinline__ float4 load4(const float* __restrict__ row, const unsigned int i, const unsigned int end,
                                        const float pad) {
    float4 value = splat(pad);
    if (VECTOR) {
        if (i < end) value = *reinterpret_cast<const float4*>(row + i);
    } else {
        if (i < end) value.x = row[i];
        if (i + 1u < end) value.y = row[i + 1u];
        if (i + 2u < end) value.z = row[i + 2u];
        if (i + 3u < end) value.w = row[i + 3u];
    }
    return value;
}

template <bool VECTOR>
__device__ __forceinline__ void store4(float* __restrict__ row, const unsigned int i, const unsigned int end,
                                       const float4 value) {
    if (VECTOR) {
        if (i < end) *reinterpret_cast<float4*>(row + i) = value;
    } else {
        if (i < end) row[i] = value.x;
        if (i + 1u < end) row[i + 1u] = value.y;
        if (i + 2u < end) row[i + 2u] = value.z;
        if (i + 3u < end) row[i + 3u] = value.w;
    }
}

// The grid shares `n` elements: `many(i)` takes elements WIDTH i .. WIDTH i + WIDTH - 1 where `together` allows it,
// `one(i)` element i. Elements are independent, so any grid gives the same bits. A lane takes 16 bytes of the widest
// array at once, so that neighbours ask for neighbouring bytes and no sector is asked for twice.
template <unsigned int WIDTH = 4, typename Many, typename One>
__device__ __forceinline__ void for_each(const unsigned long long n, const bool together, Many many, One one) {
    const unsigned long long first = blockIdx.x * static_cast<unsigned long long>(blockDim.x) + threadIdx.x;
    const unsigned long long stride = gridDim.x * static_cast<unsigned long long>(blockDim.x);
    const unsigned long long groups = together ? n / WIDTH : 0u;
    for (unsigned long long i = first; i < groups; i += stride) many(i);
    for (unsigned long long i = WIDTH * groups + first; i < n; i += stride) one(i);
}
