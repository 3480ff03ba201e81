// The gate of SwiGLU, for its own kernels and for the product that ends in it.

// 1 / (1 + exp(-g)): rcp rounds as the division does.
__device__ __forceinline__ float sigmoid(const float g) { return __frcp_rn(__fadd_rn(1.0f, contract_exp(-g))); }

__device__ __forceinline__ float gated(const float g, const float u) {
    return __fmul_rn(__fmul_rn(g, sigmoid(g)), u);
}
