// The residual stream, elementwise: bound by bandwidth.

extern "C" __global__ void __launch_bounds__(256)
residual_add(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ y,
             const unsigned long long n) {
    const float4* __restrict__ a4 = reinterpret_cast<const float4*>(a);
    const float4* __restrict__ b4 = reinterpret_cast<const float4*>(b);
    float4* __restrict__ y4 = reinterpret_cast<float4*>(y);
    for_each(
        n, vectors(a, b, y), [&](const unsigned long long i) { y4[i] = add4(a4[i], b4[i]); },
        [&](const unsigned long long i) { y[i] = __fadd_rn(a[i], b[i]); });
}

extern "C" __global__ void __launch_bounds__(256)
residual_accumulate(float* __restrict__ sum, const float* __restrict__ x, const unsigned long long n) {
    float4* __restrict__ sum4 = reinterpret_cast<float4*>(sum);
    const float4* __restrict__ x4 = reinterpret_cast<const float4*>(x);
    for_each(
        n, vectors(sum, x), [&](const unsigned long long i) { sum4[i] = add4(sum4[i], x4[i]); },
        [&](const unsigned long long i) { sum[i] = __fadd_rn(sum[i], x[i]); });
}
