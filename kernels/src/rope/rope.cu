// Rotary position embedding: a thread takes four pairs (rope_vectors) of all heads of a row, which share their cosines and
// sines, or one pair of one head (rope_any).

// y0 = fma(x0, c, -(x1 * s)), y1 = fma(x0, s, x1 * c).
__device__ __forceinline__ void rotate(const float x0, const float x1, const float c, const float s, float& y0,
                                       float& y1) {
    y0 = __fmaf_rn(x0, c, -__fmul_rn(x1, s));
    y1 = __fmaf_rn(x0, s, __fmul_rn(x1, c));
}

// `half`, pairs of a head, is a multiple of four, the block's threads are a multiple of half / 4, and all arrays begin on
// 16 bytes.
extern "C" __global__ void __launch_bounds__(256)
rope_vectors(const float* __restrict__ x, const float* __restrict__ cosines, const float* __restrict__ sines,
             float* __restrict__ y, const unsigned int rows, const unsigned int seq, const unsigned int heads,
             const unsigned int half, const unsigned int backward) {
    const unsigned int half4 = half / 4u, rows_of_block = blockDim.x / half4;
    const unsigned int pair = threadIdx.x % half4;
    const size_t stride = static_cast<size_t>(gridDim.x) * rows_of_block;
    for (size_t row = static_cast<size_t>(blockIdx.x) * rows_of_block + threadIdx.x / half4; row < rows; row += stride) {
        const size_t table = static_cast<size_t>(static_cast<unsigned int>(row) % seq) * half4 + pair;
        const float4 c = reinterpret_cast<const float4*>(cosines)[table];
        float4 s = reinterpret_cast<const float4*>(sines)[table];
        if (backward != 0u) s = make_float4(-s.x, -s.y, -s.z, -s.w);
        const size_t first = row * heads * 2u * half4 + pair;
        const float4* __restrict__ from = reinterpret_cast<const float4*>(x) + first;
        float4* __restrict__ to = reinterpret_cast<float4*>(y) + first;
        #pragma unroll 4
        for (unsigned int head = 0u; head < heads; ++head, from += 2u * half4, to += 2u * half4) {
            const float4 x0 = from[0], x1 = from[half4];
            float4 y0, y1;
            rotate(x0.x, x1.x, c.x, s.x, y0.x, y1.x);
            rotate(x0.y, x1.y, c.y, s.y, y0.y, y1.y);
            rotate(x0.z, x1.z, c.z, s.z, y0.z, y1.z);
            rotate(x0.w, x1.w, c.w, s.w, y0.w, y1.w);
            to[0] = y0;
            to[half4] = y1;
        }
    }
}

extern "C" __global__ void __launch_bounds__(256)
rope_any(const float* __restrict__ x, const float* __restrict__ cosines, const float* __restrict__ sines,
         float* __restrict__ y, const unsigned int rows, const unsigned int seq, const unsigned int heads,
         const unsigned int half, const unsigned int backward) {
    for (unsigned int row = blockIdx.x; row < rows; row += gridDim.x) {
        const size_t base = static_cast<size_t>(row) * heads * 2u * half;
        const size_t table = static_cast<size_t>(row % seq) * half;
        for (unsigned int i = threadIdx.x; i < heads * half; i += blockDim.x) {
            const unsigned int head = i / half, pair = i % half;
            const size_t low = base + static_cast<size_t>(head) * 2u * half + pair;
            const float s = sines[table + pair];
            rotate(x[low], x[low + half], cosines[table + pair], backward != 0u ? -s : s, y[low], y[low + half]);
        }
    }
}
