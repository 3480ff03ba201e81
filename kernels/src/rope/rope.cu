// Rotary position embedding: a block takes one row at a time, a thread four pairs (rope_vectors) or one (rope_any).
// Heads of a row share their cosines and sines, which stay in the first cache.

// y0 = fma(x0, c, -(x1 * s)), y1 = fma(x0, s, x1 * c).
__device__ __forceinline__ void rotate(const float x0, const float x1, const float c, const float s, float& y0,
                                       float& y1) {
    y0 = __fmaf_rn(x0, c, -__fmul_rn(x1, s));
    y1 = __fmaf_rn(x0, s, __fmul_rn(x1, c));
}

// `half`, pairs of a head, is a multiple of four, and all arrays begin on 16 bytes.
extern "C" __global__ void __launch_bounds__(256)
rope_vectors(const float* __restrict__ x, const float* __restrict__ cosines, const float* __restrict__ sines,
             float* __restrict__ y, const unsigned int rows, const unsigned int seq, const unsigned int heads,
             const unsigned int half, const unsigned int backward) {
    const unsigned int half4 = half / 4u;
    for (unsigned int row = blockIdx.x; row < rows; row += gridDim.x) {
        const size_t base = static_cast<size_t>(row) * heads * 2u * half4;
        const size_t table = static_cast<size_t>(row % seq) * half4;
        for (unsigned int i = threadIdx.x; i < heads * half4; i += blockDim.x) {
            const unsigned int head = i / half4, pair = i % half4;
            const size_t low = base + static_cast<size_t>(head) * 2u * half4 + pair;
            const float4 c = reinterpret_cast<const float4*>(cosines)[table + pair];
            float4 s = reinterpret_cast<const float4*>(sines)[table + pair];
            if (backward != 0u) s = make_float4(-s.x, -s.y, -s.z, -s.w);
            const float4 x0 = reinterpret_cast<const float4*>(x)[low];
            const float4 x1 = reinterpret_cast<const float4*>(x)[low + half4];
            float4 y0, y1;
            rotate(x0.x, x1.x, c.x, s.x, y0.x, y1.x);
            rotate(x0.y, x1.y, c.y, s.y, y0.y, y1.y);
            rotate(x0.z, x1.z, c.z, s.z, y0.z, y1.z);
            rotate(x0.w, x1.w, c.w, s.w, y0.w, y1.w);
            reinterpret_cast<float4*>(y)[low] = y0;
            reinterpret_cast<float4*>(y)[low + half4] = y1;
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
