// Merging replicas: codes on shared exponents, exact sums, the outer step. One warp per block of 128.

// (old - local) + residual; beyond the end 0.
__device__ __forceinline__ float4 change(const float* __restrict__ old, const float* __restrict__ local,
                                         const float* __restrict__ residual, const unsigned int i,
                                         const unsigned int n, const bool in_fours) {
    float4 a, b, c;
    if (in_fours && i + 4u <= n) {
        a = load4<true>(old, i, n, 0.0f), b = load4<true>(local, i, n, 0.0f), c = load4<true>(residual, i, n, 0.0f);
    } else {
        a = load4<false>(old, i, n, 0.0f), b = load4<false>(local, i, n, 0.0f);
        c = load4<false>(residual, i, n, 0.0f);
    }
    return make_float4(__fadd_rn(__fsub_rn(a.x, b.x), c.x), __fadd_rn(__fsub_rn(a.y, b.y), c.y),
                       __fadd_rn(__fsub_rn(a.z, b.z), c.z), __fadd_rn(__fsub_rn(a.w, b.w), c.w));
}

extern "C" __global__ void __launch_bounds__(256)
merge_exponents(const float* __restrict__ old, const float* __restrict__ local, const float* __restrict__ residual,
                signed char* __restrict__ exponents, unsigned int* __restrict__ status, const unsigned int n) {
    const bool in_fours = vectors(old, local, residual);
    const unsigned int blocks = (n + BLOCK_ELEMENTS - 1u) / BLOCK_ELEMENTS, lane = threadIdx.x % 32u;
    for (unsigned int block = warp_of_grid(); block < blocks; block += warps_of_grid()) {
        const unsigned int i = block * BLOCK_ELEMENTS + 4u * lane;
        const float4 v = change(old, local, residual, i, n, in_fours);
        report_non_finite(status, i, v);
        const int e = block_exponent(v);
        if (lane == 0u) exponents[block] = static_cast<signed char>(e);
    }
}

// Looks at all elements before `merge_contribute` changes any.
extern "C" __global__ void __launch_bounds__(256)
merge_check(const float* __restrict__ old, const float* __restrict__ local, const float* __restrict__ residual,
            unsigned int* __restrict__ status, const unsigned int n) {
    const bool in_fours = vectors(old, local, residual);
    for (unsigned int i = 4u * (blockIdx.x * blockDim.x + threadIdx.x); i < n; i += 4u * gridDim.x * blockDim.x) {
        report_non_finite(status, i, change(old, local, residual, i, n, in_fours));
    }
}

// Does nothing if the status is lowered.
extern "C" __global__ void __launch_bounds__(256)
merge_contribute(const float* __restrict__ old, const float* __restrict__ local,
                 const signed char* __restrict__ exponents, float* __restrict__ residual, short* __restrict__ codes,
                 const unsigned int* __restrict__ status, const unsigned int n, const unsigned int bits) {
    if (*status != NO_FAULT) return;
    const bool in_fours = vectors(old, local, residual, codes);
    const unsigned int blocks = (n + BLOCK_ELEMENTS - 1u) / BLOCK_ELEMENTS, lane = threadIdx.x % 32u;
    for (unsigned int block = warp_of_grid(); block < blocks; block += warps_of_grid()) {
        const unsigned int i = block * BLOCK_ELEMENTS + 4u * lane;
        const float4 v = change(old, local, residual, i, n, in_fours);
        const float factor = to_code(bits, exponents[block]), back = from_code(bits, exponents[block]);
        const int q[4] = {quantise(v.x, factor, bits), quantise(v.y, factor, bits), quantise(v.z, factor, bits),
                          quantise(v.w, factor, bits)};
        const float4 left = make_float4(__fsub_rn(v.x, __fmul_rn(__int2float_rn(q[0]), back)),
                                        __fsub_rn(v.y, __fmul_rn(__int2float_rn(q[1]), back)),
                                        __fsub_rn(v.z, __fmul_rn(__int2float_rn(q[2]), back)),
                                        __fsub_rn(v.w, __fmul_rn(__int2float_rn(q[3]), back)));
        if (in_fours && i + 4u <= n) {
            store4<true>(residual, i, n, left);
            *reinterpret_cast<short4*>(codes + i) = make_short4(q[0], q[1], q[2], q[3]);
        } else {
            store4<false>(residual, i, n, left);
            #pragma unroll
            for (unsigned int j = 0u; j < 4u; ++j) {
                if (i + j < n) codes[i + j] = static_cast<short>(q[j]);
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(256)
merge_share_exponents(signed char* __restrict__ shared, const signed char* __restrict__ other,
                      const unsigned long long n) {
    for_each(
        n, false, [](const unsigned long long) {},
        [&](const unsigned long long i) { shared[i] = max(shared[i], other[i]); });
}

extern "C" __global__ void __launch_bounds__(256)
merge_accumulate(long long* __restrict__ sums, const short* __restrict__ codes, const unsigned long long n,
                 const unsigned int weight) {
    const long long w = weight;
    for_each<2>(
        n, vectors(sums, codes),
        [&](const unsigned long long i) {
            const short2 q = reinterpret_cast<const short2*>(codes)[i];
            longlong2 sum = reinterpret_cast<longlong2*>(sums)[i];
            sum.x += w * q.x, sum.y += w * q.y;
            reinterpret_cast<longlong2*>(sums)[i] = sum;
        },
        [&](const unsigned long long i) { sums[i] += w * codes[i]; });
}

__device__ __forceinline__ float mean_change(const long long sum, const int bits, const int e, const float weight) {
    return __fdiv_rn(__fmul_rn(__ll2float_rn(sum), from_code(bits, e)), weight);
}

__device__ __forceinline__ void nesterov(float& p, float& buf, const float d, const float momentum,
                                         const float minus_lr) {
    buf = __fmaf_rn(momentum, buf, d);
    p = __fmaf_rn(minus_lr, __fmaf_rn(momentum, buf, d), p);
}

// `weight` is the sum of the replicas' weights; the launcher sees to it that it is not 0.
extern "C" __global__ void __launch_bounds__(256)
merge_nesterov(const long long* __restrict__ sums, const signed char* __restrict__ exponents, float* __restrict__ p,
               float* __restrict__ buf, const unsigned long long n, const unsigned int bits, const float weight,
               const float momentum, const float minus_lr) {
    for_each<2>(
        n, vectors(sums, p, buf),
        [&](const unsigned long long i) {
            const longlong2 sum = reinterpret_cast<const longlong2*>(sums)[i];
            const int e = exponents[2u * i / BLOCK_ELEMENTS];
            float2 pi = reinterpret_cast<float2*>(p)[i], bi = reinterpret_cast<float2*>(buf)[i];
            nesterov(pi.x, bi.x, mean_change(sum.x, bits, e, weight), momentum, minus_lr);
            nesterov(pi.y, bi.y, mean_change(sum.y, bits, e, weight), momentum, minus_lr);
            reinterpret_cast<float2*>(p)[i] = pi;
            reinterpret_cast<float2*>(buf)[i] = bi;
        },
        [&](const unsigned long long i) {
            float pi = p[i], bi = buf[i];
            nesterov(pi, bi, mean_change(sums[i], bits, exponents[i / BLOCK_ELEMENTS], weight), momentum, minus_lr);
            p[i] = pi;
            buf[i] = bi;
        });
}

// Four blocks to a multiprocessor: without a number, the compiler keeps to fewer registers than the divisions need.
extern "C" __global__ void __launch_bounds__(256, 4)
merge_plain(const long long* __restrict__ sums, const signed char* __restrict__ exponents, float* __restrict__ p,
            const unsigned long long n, const unsigned int bits, const float weight) {
    for_each<2>(
        n, vectors(sums, p),
        [&](const unsigned long long i) {
            const longlong2 sum = reinterpret_cast<const longlong2*>(sums)[i];
            const int e = exponents[2u * i / BLOCK_ELEMENTS];
            float2 pi = reinterpret_cast<float2*>(p)[i];
            pi.x = __fsub_rn(pi.x, mean_change(sum.x, bits, e, weight));
            pi.y = __fsub_rn(pi.y, mean_change(sum.y, bits, e, weight));
            reinterpret_cast<float2*>(p)[i] = pi;
        },
        [&](const unsigned long long i) {
            p[i] = __fsub_rn(p[i], mean_change(sums[i], bits, exponents[i / BLOCK_ELEMENTS], weight));
        });
}
