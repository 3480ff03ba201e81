// SwiGLU, elementwise: bound by bandwidth.

__device__ __forceinline__ void gradients(const float g, const float u, const float dh, float& dg, float& du) {
    const float sg = sigmoid(g);
    const float t = __fmul_rn(g, sg);
    du = __fmul_rn(dh, t);
    dg = __fmul_rn(__fmul_rn(dh, u), __fmaf_rn(t, __fsub_rn(1.0f, sg), sg));
}

extern "C" __global__ void __launch_bounds__(256)
swiglu_forward(const float* __restrict__ g, const float* __restrict__ u, float* __restrict__ h,
               const unsigned long long n) {
    const float4* __restrict__ g4 = reinterpret_cast<const float4*>(g);
    const float4* __restrict__ u4 = reinterpret_cast<const float4*>(u);
    float4* __restrict__ h4 = reinterpret_cast<float4*>(h);
    for_each(
        n, vectors(g, u, h),
        [&](const unsigned long long i) {
            const float4 a = g4[i], b = u4[i];
            h4[i] = make_float4(gated(a.x, b.x), gated(a.y, b.y), gated(a.z, b.z), gated(a.w, b.w));
        },
        [&](const unsigned long long i) { h[i] = gated(g[i], u[i]); });
}

extern "C" __global__ void __launch_bounds__(256)
swiglu_backward(const float* __restrict__ g, const float* __restrict__ u, const float* __restrict__ dh,
                float* __restrict__ dg, float* __restrict__ du, const unsigned long long n) {
    const float4* __restrict__ g4 = reinterpret_cast<const float4*>(g);
    const float4* __restrict__ u4 = reinterpret_cast<const float4*>(u);
    const float4* __restrict__ dh4 = reinterpret_cast<const float4*>(dh);
    float4* __restrict__ dg4 = reinterpret_cast<float4*>(dg);
    float4* __restrict__ du4 = reinterpret_cast<float4*>(du);
    for_each(
        n, vectors(g, u, dh, dg, du),
        [&](const unsigned long long i) {
            const float4 a = g4[i], b = u4[i], c = dh4[i];
            float4 da, db;
            gradients(a.x, b.x, c.x, da.x, db.x);
            gradients(a.y, b.y, c.y, da.y, db.y);
            gradients(a.z, b.z, c.z, da.z, db.z);
            gradients(a.w, b.w, c.w, da.w, db.w);
            dg4[i] = da;
            du4[i] = db;
        },
        [&](const unsigned long long i) {
            float da, db;
            gradients(g[i], u[i], dh[i], da, db);
            dg[i] = da;
            du[i] = db;
        });
}
