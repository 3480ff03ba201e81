// Softmax cross-entropy, loss and gradient in one visit of a row.
//
// The rungs differ in where a row waits between maximum, sum and gradient, never in the order of operations:
//   *_warp    in the registers of one warp; vocab <= 1024, vocab % 4 == 0, 16-byte rows
//   *_block   in the registers of a block, one warp per chunk of 4096; vocab <= 32768, the same alignment
//   *_any_*   in memory, read three times (twice from cache)

// Entries of one partial sum.
#define VOCAB_CHUNK 4096u
#define NOT_A_NUMBER __int_as_float(0x7fffffff)

// ln x of the arithmetic contract in f64, for x > 0: what is summed here is at least 1, infinite, or not a number.
__device__ __forceinline__ double contract_ln(const double x) {
    if (!(x < __longlong_as_double(0x7ff0000000000000ll))) return x;
    const long long bits = __double_as_longlong(x);
    long long k = (bits >> 52) - 1023;
    double y = __longlong_as_double((bits & 0x000fffffffffffffll) | 0x3ff0000000000000ll);
    if (y >= 0x1.6a09e667f3bcdp+0) {
        y = __dmul_rn(y, 0.5);
        ++k;
    }
    const double f = __ddiv_rn(__dsub_rn(y, 1.0), __dadd_rn(y, 1.0));
    const double f2 = __dmul_rn(f, f);
    double series = 1.0 / 21.0;
    series = __dadd_rn(__dmul_rn(series, f2), 1.0 / 19.0);
    series = __dadd_rn(__dmul_rn(series, f2), 1.0 / 17.0);
    series = __dadd_rn(__dmul_rn(series, f2), 1.0 / 15.0);
    series = __dadd_rn(__dmul_rn(series, f2), 1.0 / 13.0);
    series = __dadd_rn(__dmul_rn(series, f2), 1.0 / 11.0);
    series = __dadd_rn(__dmul_rn(series, f2), 1.0 / 9.0);
    series = __dadd_rn(__dmul_rn(series, f2), 1.0 / 7.0);
    series = __dadd_rn(__dmul_rn(series, f2), 1.0 / 5.0);
    series = __dadd_rn(__dmul_rn(series, f2), 1.0 / 3.0);
    const double ln_y = __dadd_rn(__dmul_rn(2.0, f), __dmul_rn(__dmul_rn(2.0, f), __dmul_rn(f2, series)));
    const double kd = static_cast<double>(k);
    return __dadd_rn(__dmul_rn(kd, __longlong_as_double(0x3fe62e42fee00000ll)),
                     __dadd_rn(ln_y, __dmul_rn(kd, __longlong_as_double(0x3dea39ef35793c76ll))));
}

__device__ __forceinline__ float row_loss(const float m, const float sum, const float z_target) {
    const double above = __dsub_rn(static_cast<double>(m), static_cast<double>(z_target));
    return __double2float_rn(__dadd_rn(above, contract_ln(static_cast<double>(sum))));
}

__device__ __forceinline__ float max_of(const float4 z, const float m) {
    return contract_max(z.x, contract_max(z.y, contract_max(z.z, contract_max(z.w, m))));
}

// An exact maximum does not depend on the order, but for the sign of a zero, which + 0 settles where it is used.
__device__ __forceinline__ float warp_max(float m) {
    #pragma unroll
    for (int apart = 16; apart > 0; apart >>= 1) m = contract_max(__shfl_xor_sync(ALL_LANES, m, apart), m);
    return m;
}

__device__ __forceinline__ float4 exp4(const float4 z, const float m) {
    return make_float4(contract_exp(__fsub_rn(z.x, m)), contract_exp(__fsub_rn(z.y, m)),
                       contract_exp(__fsub_rn(z.z, m)), contract_exp(__fsub_rn(z.w, m)));
}

__device__ __forceinline__ float gradient(const float e, const float inverse, const bool hit, const float weight) {
    return __fmul_rn(__fsub_rn(__fmul_rn(e, inverse), hit ? 1.0f : 0.0f), weight);
}

// Entries i .. i+3 of a row's gradient.
__device__ __forceinline__ float4 gradient4(const float4 e, const float inverse, const unsigned int i,
                                            const unsigned int target, const float weight) {
    return make_float4(gradient(e.x, inverse, i == target, weight), gradient(e.y, inverse, i + 1u == target, weight),
                       gradient(e.z, inverse, i + 2u == target, weight),
                       gradient(e.w, inverse, i + 3u == target, weight));
}

// The logit of the target, read before the gradient may take its place. The loss of a row whose target is no entry is not
// a number; the caller has checked targets on the host.
__device__ __forceinline__ float logit_of(const float* row, const unsigned int vocab, const unsigned int target) {
    return target < vocab ? row[target] : NOT_A_NUMBER;
}

__device__ __forceinline__ float loss_of(const float logit, const unsigned int vocab, const unsigned int target,
                                         const float m, const float sum) {
    return target < vocab ? row_loss(m, sum, logit) : NOT_A_NUMBER;
}

// The exponentials of what a warp holds of a chunk, in its place, and their R128. What lies beyond the end counts +0,
// which leaves an accumulator that is never -0 as it is.
template <int N>
__device__ __forceinline__ float held_sum(float4 (&held)[N], const float m, const unsigned int left) {
    float4 a = splat(0.0f);
    #pragma unroll
    for (int j = 0; j < N; ++j) {
        held[j] = (j * WARP_LANES + threadIdx.x % WARP_LANES) * 4u < left ? exp4(held[j], m) : splat(0.0f);
        a = add4(a, held[j]);
    }
    return r128_fold(a);
}

template <int N>
__device__ __forceinline__ void hold(float4 (&held)[N], const float* chunk, const unsigned int left,
                                     const float pad) {
    #pragma unroll
    for (int j = 0; j < N; ++j) {
        held[j] = load4<true>(chunk, (j * WARP_LANES + threadIdx.x % WARP_LANES) * 4u, left, pad);
    }
}

template <int N>
__device__ __forceinline__ float held_max(const float4 (&held)[N], float m) {
    #pragma unroll
    for (int j = 0; j < N; ++j) m = max_of(held[j], m);
    return warp_max(m);
}

// `begin` is the chunk's first entry in the row.
template <int N>
__device__ __forceinline__ void store_gradient(const float4 (&held)[N], float* out,
                                               const unsigned int begin, const unsigned int left,
                                               const float inverse, const unsigned int target,
                                               const float weight) {
    #pragma unroll
    for (int j = 0; j < N; ++j) {
        const unsigned int i = (j * WARP_LANES + threadIdx.x % WARP_LANES) * 4u;
        store4<true>(out, i, left, gradient4(held[j], inverse, begin + i, target, weight));
    }
}

// In all kernels the gradient may stand where the logits stand: the pointers are not restricted, and every entry is read
// for the last time by the thread that writes there, or before all threads of the row meet.

// One warp per row.
extern "C" __global__ void __launch_bounds__(256)
cross_entropy_forward_warp(const float* logits, float* dlogits, const unsigned int* __restrict__ targets,
                           float* __restrict__ loss, const unsigned int rows, const unsigned int vocab,
                           const float weight) {
    const unsigned int row = blockIdx.x * (blockDim.x / WARP_LANES) + threadIdx.x / WARP_LANES;
    if (row >= rows) return;
    const float* z = logits + static_cast<size_t>(row) * vocab;
    const unsigned int target = targets[row];
    // The maximum begins with the row's first entry: a row that begins with a NaN has none.
    const float first = z[0], logit = logit_of(z, vocab, target);
    float4 held[8];
    hold(held, z, vocab, first);
    __syncwarp();
    const float m = __fadd_rn(held_max(held, first), 0.0f);
    const float sum = __fadd_rn(0.0f, held_sum(held, m, vocab));
    store_gradient(held, dlogits + static_cast<size_t>(row) * vocab, 0u, vocab, __frcp_rn(sum), target, weight);
    if (threadIdx.x % WARP_LANES == 0u) loss[row] = loss_of(logit, vocab, target, m, sum);
}

// One block per row, one warp per chunk.
extern "C" __global__ void __launch_bounds__(256)
cross_entropy_forward_block(const float* logits, float* dlogits, const unsigned int* __restrict__ targets,
                            float* __restrict__ loss, const unsigned int rows, const unsigned int vocab,
                            const float weight) {
    __shared__ float maxima[8], sums[8];
    const unsigned int row = blockIdx.x, warp = threadIdx.x / WARP_LANES, warps = blockDim.x / WARP_LANES;
    const unsigned int begin = warp * VOCAB_CHUNK, left = min(vocab - begin, VOCAB_CHUNK);
    const float* z = logits + static_cast<size_t>(row) * vocab;
    const unsigned int target = targets[row];
    // Only the first thread tells the loss: the other warps need not fetch the target's logit.
    const float first = z[0], logit = warp == 0u ? logit_of(z, vocab, target) : 0.0f;
    float4 held[VOCAB_CHUNK / 128u];
    hold(held, z + begin, left, first);
    float m = held_max(held, first);
    if (threadIdx.x % WARP_LANES == 0u) maxima[warp] = m;
    __syncthreads();
    for (unsigned int w = 0u; w < warps; ++w) m = contract_max(maxima[w], m);
    m = __fadd_rn(m, 0.0f);
    const float part = held_sum(held, m, left);
    if (threadIdx.x % WARP_LANES == 0u) sums[warp] = part;
    __syncthreads();
    float sum = 0.0f;
    for (unsigned int w = 0u; w < warps; ++w) sum = __fadd_rn(sum, sums[w]);
    store_gradient(held, dlogits + static_cast<size_t>(row) * vocab + begin, begin, left, __frcp_rn(sum), target,
                   weight);
    if (threadIdx.x == 0u) loss[row] = loss_of(logit, vocab, target, m, sum);
}

// One block of 8 warps per row, any length.
template <bool VECTOR>
__device__ __forceinline__ void forward_any(const float* logits, float* dlogits,
                                            const unsigned int* __restrict__ targets, float* __restrict__ loss,
                                            const unsigned int vocab, const float weight) {
    __shared__ float maxima[8], sums[8];
    const unsigned int row = blockIdx.x, warp = threadIdx.x / WARP_LANES, lane = threadIdx.x % WARP_LANES;
    const unsigned int warps = blockDim.x / WARP_LANES;
    const float* z = logits + static_cast<size_t>(row) * vocab;
    float* dz = dlogits + static_cast<size_t>(row) * vocab;
    const unsigned int target = targets[row];
    const float first = z[0], logit = logit_of(z, vocab, target);

    float m = first;
    for (unsigned int i = 4u * threadIdx.x; i < vocab; i += 4u * blockDim.x) {
        m = max_of(load4<VECTOR>(z, i, vocab, first), m);
    }
    __syncwarp();
    m = warp_max(m);
    if (lane == 0u) maxima[warp] = m;
    __syncthreads();
    for (unsigned int w = 0u; w < warps; ++w) m = contract_max(maxima[w], m);
    m = __fadd_rn(m, 0.0f);

    // Each round takes one chunk per warp; the sums of a round are added by everyone, in the chunks' order.
    const unsigned int chunks = (vocab + VOCAB_CHUNK - 1u) / VOCAB_CHUNK;
    float sum = 0.0f;
    for (unsigned int round = 0u; round < chunks; round += warps) {
        const unsigned int chunk = round + warp;
        if (chunk < chunks) {
            const unsigned int begin = chunk * VOCAB_CHUNK, end = min(vocab, begin + VOCAB_CHUNK);
            float4 a = splat(0.0f);
            for (unsigned int i = begin + 4u * lane; i < end; i += PASS) {
                // Beyond the end stands -Inf, whose exponential is +0.
                a = add4(a, exp4(load4<VECTOR>(z, i, end, __int_as_float(0xff800000)), m));
            }
            __syncwarp();
            const float part = r128_fold(a);
            if (lane == 0u) sums[warp] = part;
        }
        __syncthreads();
        for (unsigned int w = 0u; w < min(warps, chunks - round); ++w) sum = __fadd_rn(sum, sums[w]);
        __syncthreads();
    }

    const float inverse = __frcp_rn(sum);
    for (unsigned int i = 4u * threadIdx.x; i < vocab; i += 4u * blockDim.x) {
        const float4 e = exp4(load4<VECTOR>(z, i, vocab, 0.0f), m);
        store4<VECTOR>(dz, i, vocab, gradient4(e, inverse, i, target, weight));
    }
    if (threadIdx.x == 0u) loss[row] = loss_of(logit, vocab, target, m, sum);
}

extern "C" __global__ void __launch_bounds__(256)
cross_entropy_forward_any_vectors(const float* logits, float* dlogits, const unsigned int* __restrict__ targets,
                                  float* __restrict__ loss, const unsigned int rows, const unsigned int vocab,
                                  const float weight) {
    forward_any<true>(logits, dlogits, targets, loss, vocab, weight);
}

extern "C" __global__ void __launch_bounds__(256)
cross_entropy_forward_any(const float* logits, float* dlogits, const unsigned int* __restrict__ targets,
                          float* __restrict__ loss, const unsigned int rows, const unsigned int vocab,
                          const float weight) {
    forward_any<false>(logits, dlogits, targets, loss, vocab, weight);
}

// The mean of the losses in fixed point, by one block: integers add up the same in any order. A sum is kept as high * 2^32
// + low, so that even saturated losses do not wrap; fewer than 2^30 rows, so that no step of the division does. No mean is
// the least integer.
extern "C" __global__ void __launch_bounds__(1024)
cross_entropy_mean(const float* __restrict__ loss, long long* __restrict__ mean, const unsigned int rows) {
    __shared__ long long highs[32];
    __shared__ unsigned long long lows[32];
    __shared__ unsigned int broken[32];
    const unsigned int warp = threadIdx.x / WARP_LANES, lane = threadIdx.x % WARP_LANES;
    long long high = 0;
    unsigned long long low = 0;
    unsigned int not_finite = 0u;
    for (unsigned int i = threadIdx.x; i < rows; i += blockDim.x) {
        const float l = loss[i];
        not_finite |= (__float_as_uint(l) & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
        const long long fixed = __double2ll_rn(__dmul_rn(static_cast<double>(l), 4294967296.0));
        high += fixed >> 32;
        low += static_cast<unsigned long long>(fixed) & 0xffffffffull;
    }
    __syncwarp();
    #pragma unroll
    for (int apart = 16; apart > 0; apart >>= 1) {
        high += __shfl_xor_sync(ALL_LANES, high, apart);
        low += __shfl_xor_sync(ALL_LANES, low, apart);
        not_finite |= __shfl_xor_sync(ALL_LANES, not_finite, apart);
    }
    if (lane == 0u) {
        highs[warp] = high;
        lows[warp] = low;
        broken[warp] = not_finite;
    }
    __syncthreads();
    if (threadIdx.x != 0u) return;
    for (unsigned int w = 1u; w < blockDim.x / WARP_LANES; ++w) {
        high += highs[w];
        low += lows[w];
        not_finite |= broken[w];
    }
    if (not_finite != 0u || rows == 0u) {
        *mean = static_cast<long long>(0x8000000000000000ull);
        return;
    }
    // floor((2 sum + rows) / (2 rows)) by long division in digits of 32 bits.
    low = 2ull * low + rows;
    high = 2 * high + static_cast<long long>(low >> 32);
    low &= 0xffffffffull;
    const long long divisor = 2 * static_cast<long long>(rows);
    long long quotient = high / divisor, rest = high % divisor;
    if (rest < 0) {
        rest += divisor;
        quotient -= 1;
    }
    const unsigned long long tail = static_cast<unsigned long long>(rest) << 32 | low;
    *mean = static_cast<long long>((static_cast<unsigned long long>(quotient) << 32)
                                   + tail / static_cast<unsigned long long>(divisor));
}
