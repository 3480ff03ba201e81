// RMSNorm. One warp per row; lane l holds the elements 128j + 4l .. 128j + 4l + 3 of its row.
//
// The rungs differ in where a row waits between the reduction and its use, never in the order of operations:
//   *_held_N  the row stays in registers, N float4 per lane, the weight in the block's shared memory, so that memory is
//             read once; d <= 128 N, d % 4 == 0
//   *_any     the row is read twice (the second time from cache); any d
//
// With an `addend` the row is x + addend, the residual stream's sum, which is kept in `sum`. With a `base` the input's
// gradient is added to it; it may be dx itself, since who writes an element is the only one to read it.

__device__ __forceinline__ float reciprocal_rms(const float ss, const float inv_d, const float eps) {
    return __frcp_rn(__fsqrt_rn(__fadd_rn(__fmul_rn(ss, inv_d), eps)));
}

// -k of dx = fma(-k, x, r * g), with k = ((c * r) * r) * r * inv_d.
__device__ __forceinline__ float negative_k(const float c, const float r, const float inv_d) {
    return -__fmul_rn(__fmul_rn(__fmul_rn(__fmul_rn(c, r), r), r), inv_d);
}

__device__ __forceinline__ unsigned int row_of_warp() {
    return blockIdx.x * (blockDim.x / WARP_LANES) + threadIdx.x / WARP_LANES;
}

// The weight, read once by a block for all of its rows. No lane may have left.
template <int N>
__device__ __forceinline__ void hold_weight(float4 (&weight)[N], const float* __restrict__ w, const unsigned int d4) {
    const float4* __restrict__ w4 = reinterpret_cast<const float4*>(w);
    for (unsigned int i = threadIdx.x; i < d4; i += blockDim.x) weight[i] = w4[i];
    __syncthreads();
}

// What a lane holds of a row; `pad` beyond its end, and nothing of a row that does not exist.
template <int N>
__device__ __forceinline__ void hold_row(float4 (&held)[N], const float* __restrict__ x, const unsigned int row,
                                         const unsigned int rows, const unsigned int d4, const float pad) {
    const float4* __restrict__ xr = reinterpret_cast<const float4*>(x) + static_cast<size_t>(row) * d4;
    #pragma unroll
    for (int j = 0; j < N; ++j) {
        const unsigned int i = j * WARP_LANES + threadIdx.x % WARP_LANES;
        held[j] = row < rows && i < d4 ? xr[i] : splat(pad);
    }
}

template <int N>
__device__ __forceinline__ void forward_held(const float* __restrict__ x, const float* __restrict__ addend,
                                             const float* __restrict__ w, float* __restrict__ sum,
                                             float* __restrict__ y, float* __restrict__ rstd,
                                             const unsigned int rows, const unsigned int d, const float inv_d,
                                             const float eps) {
    __shared__ float4 weight[N * WARP_LANES];
    const unsigned int lane = threadIdx.x % WARP_LANES, stride = gridDim.x * (blockDim.x / WARP_LANES);
    const unsigned int d4 = d / 4u;
    unsigned int row = row_of_warp();
    // The first row is on its way while the block waits for the weight.
    float4 held[N];
    hold_row(held, x, row, rows, d4, 0.0f);
    hold_weight(weight, w, d4);
    while (row < rows) {
        const size_t begin = static_cast<size_t>(row) * d4;
        if (addend != nullptr) {
            const float4* __restrict__ ar = reinterpret_cast<const float4*>(addend) + begin;
            float4* __restrict__ sr = reinterpret_cast<float4*>(sum) + begin;
            #pragma unroll
            for (int j = 0; j < N; ++j) {
                const unsigned int i = j * WARP_LANES + lane;
                if (i < d4) sr[i] = held[j] = add4(held[j], ar[i]);
            }
        }
        // A zero past the end of the row is harmless here: a sum of squares is never -0.
        float4 a = splat(0.0f);
        #pragma unroll
        for (int j = 0; j < N; ++j) r128_fma(a, held[j], held[j]);
        __syncwarp();
        const float r = reciprocal_rms(r128_fold(a), inv_d, eps);
        float4* __restrict__ yr = reinterpret_cast<float4*>(y) + begin;
        #pragma unroll
        for (int j = 0; j < N; ++j) {
            const unsigned int i = j * WARP_LANES + lane;
            if (i < d4) yr[i] = mul4(mul4(held[j], splat(r)), weight[i]);
        }
        if (lane == 0u) rstd[row] = r;
        row += stride;
        hold_row(held, x, row, rows, d4, 0.0f);
    }
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_forward_held_8(const float* __restrict__ x, const float* __restrict__ addend,
                         const float* __restrict__ w, float* __restrict__ sum, float* __restrict__ y,
                         float* __restrict__ rstd, const unsigned int rows, const unsigned int d,
                        const float inv_d, const float eps) {
    forward_held<8>(x, addend, w, sum, y, rstd, rows, d, inv_d, eps);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_forward_held_32(const float* __restrict__ x, const float* __restrict__ addend,
                         const float* __restrict__ w, float* __restrict__ sum, float* __restrict__ y,
                         float* __restrict__ rstd, const unsigned int rows, const unsigned int d,
                         const float inv_d, const float eps) {
    forward_held<32>(x, addend, w, sum, y, rstd, rows, d, inv_d, eps);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_forward_any(const float* __restrict__ x, const float* __restrict__ addend, const float* __restrict__ w,
                     float* __restrict__ sum, float* __restrict__ y, float* __restrict__ rstd, const unsigned int rows, const unsigned int d,
                     const float inv_d, const float eps) {
    const unsigned int row = row_of_warp();
    if (row >= rows) return;
    const unsigned int lane = threadIdx.x % WARP_LANES;
    const float* __restrict__ xr = x + static_cast<size_t>(row) * d;
    float* __restrict__ yr = y + static_cast<size_t>(row) * d;
    const float* __restrict__ ar = addend == nullptr ? nullptr : addend + static_cast<size_t>(row) * d;
    const auto element = [&](const unsigned int i) { return ar == nullptr ? xr[i] : __fadd_rn(xr[i], ar[i]); };
    const auto add_square = [&](float& a, const unsigned int i) {
        const float value = element(i);
        a = __fmaf_rn(value, value, a);
    };

    float ss = 0.0f;
    for (unsigned int begin = 0u; begin < d; begin += R128_CHUNK) {
        const unsigned int end = min(d, begin + R128_CHUNK);
        float4 a = splat(0.0f);
        for (unsigned int i = begin + 4u * lane; i < end; i += PASS) {
            add_square(a.x, i);
            if (i + 1u < end) add_square(a.y, i + 1u);
            if (i + 2u < end) add_square(a.z, i + 2u);
            if (i + 3u < end) add_square(a.w, i + 3u);
        }
        __syncwarp();
        // The first chunk's sum is taken as it is: 0 + -0 would lose a sign.
        const float part = r128_fold(a);
        ss = begin == 0u ? part : __fadd_rn(ss, part);
    }
    const float r = reciprocal_rms(ss, inv_d, eps);
    for (unsigned int i = lane; i < d; i += WARP_LANES) {
        const float value = element(i);
        if (ar != nullptr) sum[static_cast<size_t>(row) * d + i] = value;
        yr[i] = __fmul_rn(__fmul_rn(value, r), w[i]);
    }
    if (lane == 0u) rstd[row] = r;
}

template <int N>
__device__ __forceinline__ void backward_held(const float* __restrict__ x, const float* __restrict__ w,
                                              const float* __restrict__ rstd, const float* __restrict__ dy,
                                              const float* base, float* dx, const unsigned int rows,
                                              const unsigned int d, const float inv_d) {
    __shared__ float4 weight[N * WARP_LANES];
    const unsigned int lane = threadIdx.x % WARP_LANES, stride = gridDim.x * (blockDim.x / WARP_LANES);
    const unsigned int d4 = d / 4u;
    unsigned int row = row_of_warp();
    // Past the end g = -0 and x = +0: their product is -0, and fma(-0 * 0, acc) leaves every acc as it is,
    // the accumulator that has underflowed to -0 included.
    float4 held_x[N], held_g[N];
    hold_row(held_x, x, row, rows, d4, 0.0f);
    hold_row(held_g, dy, row, rows, d4, -0.0f);
    hold_weight(weight, w, d4);
    while (row < rows) {
        float4 a = splat(0.0f);
        #pragma unroll
        for (int j = 0; j < N; ++j) {
            const unsigned int i = j * WARP_LANES + lane;
            if (i < d4) held_g[j] = mul4(held_g[j], weight[i]);
            r128_fma(a, held_g[j], held_x[j]);
        }
        __syncwarp();
        const float r = rstd[row];
        const float minus_k = negative_k(r128_fold(a), r, inv_d);
        const size_t begin = static_cast<size_t>(row) * d4;
        const float4* br = base == nullptr ? nullptr : reinterpret_cast<const float4*>(base) + begin;
        float4* dxr = reinterpret_cast<float4*>(dx) + begin;
        #pragma unroll
        for (int j = 0; j < N; ++j) {
            const unsigned int i = j * WARP_LANES + lane;
            if (i >= d4) continue;
            const float4 value = fma4(splat(minus_k), held_x[j], mul4(splat(r), held_g[j]));
            dxr[i] = br == nullptr ? value : add4(br[i], value);
        }
        row += stride;
        hold_row(held_x, x, row, rows, d4, 0.0f);
        hold_row(held_g, dy, row, rows, d4, -0.0f);
    }
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_backward_held_8(const float* __restrict__ x, const float* __restrict__ w,
                         const float* __restrict__ rstd, const float* __restrict__ dy, const float* base,
                         float* dx, const unsigned int rows, const unsigned int d, const float inv_d) {
    backward_held<8>(x, w, rstd, dy, base, dx, rows, d, inv_d);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_backward_held_16(const float* __restrict__ x, const float* __restrict__ w,
                          const float* __restrict__ rstd, const float* __restrict__ dy, const float* base,
                          float* dx, const unsigned int rows, const unsigned int d, const float inv_d) {
    backward_held<16>(x, w, rstd, dy, base, dx, rows, d, inv_d);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_backward_any(const float* __restrict__ x, const float* __restrict__ w, const float* __restrict__ rstd,
                      const float* __restrict__ dy, const float* base, float* dx, const unsigned int rows,
                      const unsigned int d, const float inv_d) {
    const unsigned int row = row_of_warp();
    if (row >= rows) return;
    const unsigned int lane = threadIdx.x % WARP_LANES;
    const float* __restrict__ xr = x + static_cast<size_t>(row) * d;
    const float* __restrict__ dyr = dy + static_cast<size_t>(row) * d;
    const float* br = base == nullptr ? nullptr : base + static_cast<size_t>(row) * d;
    float* dxr = dx + static_cast<size_t>(row) * d;

    float c = 0.0f;
    for (unsigned int begin = 0u; begin < d; begin += R128_CHUNK) {
        const unsigned int end = min(d, begin + R128_CHUNK);
        float4 a = splat(0.0f);
        for (unsigned int i = begin + 4u * lane; i < end; i += PASS) {
            a.x = __fmaf_rn(__fmul_rn(dyr[i], w[i]), xr[i], a.x);
            if (i + 1u < end) a.y = __fmaf_rn(__fmul_rn(dyr[i + 1u], w[i + 1u]), xr[i + 1u], a.y);
            if (i + 2u < end) a.z = __fmaf_rn(__fmul_rn(dyr[i + 2u], w[i + 2u]), xr[i + 2u], a.z);
            if (i + 3u < end) a.w = __fmaf_rn(__fmul_rn(dyr[i + 3u], w[i + 3u]), xr[i + 3u], a.w);
        }
        __syncwarp();
        const float sum = r128_fold(a);
        c = begin == 0u ? sum : __fadd_rn(c, sum);
    }
    const float r = rstd[row];
    const float minus_k = negative_k(c, r, inv_d);
    for (unsigned int i = lane; i < d; i += WARP_LANES) {
        const float value = __fmaf_rn(minus_k, xr[i], __fmul_rn(r, __fmul_rn(dyr[i], w[i])));
        dxr[i] = br == nullptr ? value : __fadd_rn(br[i], value);
    }
}

// dw, first half: one thread per column walks a block of 64 rows in ascending order. Neighbouring lanes hold
// neighbouring columns, so every load of a warp is one full line.
#define DW_ROWS 64u

extern "C" __global__ void __launch_bounds__(128)
rms_norm_backward_dw_blocks(const float* __restrict__ x, const float* __restrict__ rstd,
                            const float* __restrict__ dy, float* __restrict__ partial, const unsigned int rows,
                            const unsigned int d) {
    __shared__ float r[DW_ROWS];
    const unsigned int column = blockIdx.x * blockDim.x + threadIdx.x;
    // A grid is at most 65535 blocks high; a device that holds more rows than that walks on.
    const unsigned int blocks = (rows + DW_ROWS - 1u) / DW_ROWS;
    for (unsigned int block = blockIdx.y; block < blocks; block += gridDim.y) {
        const unsigned int begin = block * DW_ROWS;
        const unsigned int end = min(rows, begin + DW_ROWS);
        __syncthreads();
        if (threadIdx.x < end - begin) r[threadIdx.x] = rstd[begin + threadIdx.x];
        __syncthreads();
        if (column >= d) continue;
        const float* __restrict__ xp = x + static_cast<size_t>(begin) * d + column;
        const float* __restrict__ dyp = dy + static_cast<size_t>(begin) * d + column;
        float sum = 0.0f;
        #pragma unroll 8
        for (unsigned int row = begin; row < end; ++row, xp += d, dyp += d) {
            sum = __fmaf_rn(*dyp, __fmul_rn(*xp, r[row - begin]), sum);
        }
        partial[static_cast<size_t>(block) * d + column] = sum;
    }
}

// dw, second half: the block sums, ascending, onto the gradient.
extern "C" __global__ void __launch_bounds__(128)
rms_norm_backward_dw_fold(const float* __restrict__ partial, float* __restrict__ dw, const unsigned int blocks,
                          const unsigned int d) {
    const unsigned int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= d) return;
    float sum = dw[column];
    #pragma unroll 8
    for (unsigned int b = 0u; b < blocks; ++b) sum = __fadd_rn(sum, partial[static_cast<size_t>(b) * d + column]);
    dw[column] = sum;
}
