// AdamW, one pass over four arrays, three of them written back: 28 bytes per parameter, bound by bandwidth.
// Elements are independent, so any grid gives the same bits.

struct Constants {
    float beta1, one_minus_beta1, beta2, one_minus_beta2;
    // Bias corrections 1 / (1 - beta^t).
    float c1, c2;
    float eps, minus_lr, decay, grad_scale;
};

__device__ __forceinline__ void step(float& p, float& m, float& v, const float grad, const Constants& k) {
    const float g = __fmul_rn(grad, k.grad_scale);
    m = __fmaf_rn(k.one_minus_beta1, g, __fmul_rn(k.beta1, m));
    v = __fmaf_rn(__fmul_rn(k.one_minus_beta2, g), g, __fmul_rn(k.beta2, v));
    const float u = __fdiv_rn(__fmul_rn(m, k.c1), __fadd_rn(__fsqrt_rn(__fmul_rn(v, k.c2)), k.eps));
    p = __fmaf_rn(k.minus_lr, u, __fmul_rn(p, k.decay));
}

// Five blocks to a multiprocessor: without a number, the compiler spills on sm_80 to keep eight.
extern "C" __global__ void __launch_bounds__(256, 5)
adamw(float* __restrict__ p, float* __restrict__ m, float* __restrict__ v, const float* __restrict__ g,
      const unsigned long long n, const float beta1, const float one_minus_beta1, const float beta2,
      const float one_minus_beta2, const float c1, const float c2, const float eps, const float minus_lr,
      const float decay, const float grad_scale, const float* __restrict__ clip) {
    // A clip scale that this device has computed itself never visits the host.
    const float scale = clip == nullptr ? grad_scale : *clip;
    const Constants k = {beta1, one_minus_beta1, beta2, one_minus_beta2, c1, c2, eps, minus_lr, decay, scale};
    float4* __restrict__ p4 = reinterpret_cast<float4*>(p);
    float4* __restrict__ m4 = reinterpret_cast<float4*>(m);
    float4* __restrict__ v4 = reinterpret_cast<float4*>(v);
    const float4* __restrict__ g4 = reinterpret_cast<const float4*>(g);
    for_each(
        n, vectors(p, m, v, g),
        [&](const unsigned long long i) {
            float4 pi = p4[i], mi = m4[i], vi = v4[i];
            const float4 gi = g4[i];
            step(pi.x, mi.x, vi.x, gi.x, k);
            step(pi.y, mi.y, vi.y, gi.y, k);
            step(pi.z, mi.z, vi.z, gi.z, k);
            step(pi.w, mi.w, vi.w, gi.w, k);
            p4[i] = pi;
            m4[i] = mi;
            v4[i] = vi;
        },
        [&](const unsigned long long i) {
            float pi = p[i], mi = m[i], vi = v[i];
            step(pi, mi, vi, g[i], k);
            p[i] = pi;
            m[i] = mi;
            v[i] = vi;
        });
}
