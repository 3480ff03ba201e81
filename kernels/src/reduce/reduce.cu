// The gradient norm: sums of squares per block of 4096, folded in f64, and the clip scale that follows from them. The mean
// over members, and the look for magnitudes that are too large.

// Elements of one block.
#define SQUARES 4096u

// One warp per block.
extern "C" __global__ void __launch_bounds__(256)
reduce_squares(const float* __restrict__ g, float* __restrict__ sums, const unsigned long long n) {
    const unsigned int block = blockIdx.x * (blockDim.x / WARP_LANES) + threadIdx.x / WARP_LANES;
    const unsigned long long begin = static_cast<unsigned long long>(block) * SQUARES;
    if (begin >= n) return;
    const unsigned int lane = threadIdx.x % WARP_LANES;
    const unsigned int end = static_cast<unsigned int>(min(n - begin, static_cast<unsigned long long>(SQUARES)));
    const float* __restrict__ from = g + begin;
    float4 a = splat(0.0f);
    if (vectors(g) && end == SQUARES) {
        #pragma unroll 8
        for (unsigned int i = 4u * lane; i < SQUARES; i += PASS) {
            const float4 x = *reinterpret_cast<const float4*>(from + i);
            r128_fma(a, x, x);
        }
    } else {
        for (unsigned int i = 4u * lane; i < end; i += PASS) {
            // Beyond the end stands 0, whose square leaves an accumulator that is never -0 as it is.
            const float4 x = load4<false>(from, i, end, 0.0f);
            r128_fma(a, x, x);
        }
    }
    __syncwarp();
    const float sum = r128_fold(a);
    if (lane == 0u) sums[block] = sum;
}

// One warp: 32 block sums are fetched at once and added one after the other, the next 32 being on their way.
extern "C" __global__ void __launch_bounds__(32)
reduce_fold(const float* __restrict__ sums, double* __restrict__ total, const unsigned int blocks) {
    double sum = 0.0;
    // A sum of squares is never -0: what stands beyond the end may be added as +0.
    float next = threadIdx.x < blocks ? sums[threadIdx.x] : 0.0f;
    for (unsigned int begin = 0u; begin < blocks; begin += WARP_LANES) {
        const float held = next;
        const unsigned int i = begin + WARP_LANES + threadIdx.x;
        next = i < blocks ? sums[i] : 0.0f;
        #pragma unroll
        for (int lane = 0; lane < 32; ++lane) {
            sum = __dadd_rn(sum, static_cast<double>(__shfl_sync(ALL_LANES, held, lane)));
        }
    }
    if (threadIdx.x == 0u) *total = sum;
}

// norm = sqrt(0 + S_0 + S_1 + ...); scale = clip / (norm + 1e-6) if that is below 1, else 1. A norm that is not finite
// has no scale: it is left not a number, and whoever reads the norm strikes the step.
extern "C" __global__ void __launch_bounds__(32)
reduce_clip(const double* __restrict__ sums, double* __restrict__ norm, float* __restrict__ scale,
            const unsigned int tensors, const double clip) {
    if (threadIdx.x != 0u) return;
    double sum = 0.0;
    for (unsigned int i = 0u; i < tensors; ++i) sum = __dadd_rn(sum, sums[i]);
    const double root = __dsqrt_rn(sum);
    const double wanted = __ddiv_rn(clip, __dadd_rn(root, 1e-6));
    const bool finite = root < __longlong_as_double(0x7ff0000000000000ll);
    *norm = root;
    *scale = !finite ? __int_as_float(0x7fffffff) : wanted < 1.0 ? __double2float_rn(wanted) : 1.0f;
}

extern "C" __global__ void __launch_bounds__(256)
reduce_scale(float* __restrict__ g, const unsigned long long n, const float factor) {
    float4* __restrict__ g4 = reinterpret_cast<float4*>(g);
    for_each(
        n, vectors(g), [&](const unsigned long long i) { g4[i] = mul4(g4[i], splat(factor)); },
        [&](const unsigned long long i) { g[i] = __fmul_rn(g[i], factor); });
}

// Magnitudes are ordered as their bits are, and those of a NaN are the largest.
__device__ __forceinline__ bool beyond(const float x, const unsigned int bound) {
    return (__float_as_uint(x) & 0x7fffffffu) >= bound;
}

// The place is lowered to the first element that is not below the bound; an integer's minimum has no order.
extern "C" __global__ void __launch_bounds__(256)
reduce_first_beyond(const float* __restrict__ x, unsigned int* __restrict__ place, const unsigned int n,
                    const unsigned int bound) {
    const float4* __restrict__ x4 = reinterpret_cast<const float4*>(x);
    for_each(
        n, vectors(x),
        [&](const unsigned long long i) {
            const float4 v = x4[i];
            const unsigned int first = beyond(v.x, bound)   ? 0u
                                       : beyond(v.y, bound) ? 1u
                                       : beyond(v.z, bound) ? 2u
                                       : beyond(v.w, bound) ? 3u
                                                            : 4u;
            if (first < 4u) atomicMin(place, static_cast<unsigned int>(4u * i) + first);
        },
        [&](const unsigned long long i) {
            if (beyond(x[i], bound)) atomicMin(place, static_cast<unsigned int>(i));
        });
}
