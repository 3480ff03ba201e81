// Philox4x32-10, counter based: any partition gives the same numbers. A thread makes whole blocks of four words.

struct Stream {
    unsigned int seed, tensor, step, purpose;
};

__device__ __forceinline__ uint4 philox(const Stream& stream, const unsigned long long block) {
    unsigned int key0 = stream.seed, key1 = stream.tensor;
    uint4 c = make_uint4(stream.step, static_cast<unsigned int>(block), stream.purpose,
                         static_cast<unsigned int>(block >> 32));
    #pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned int high0 = __umulhi(0xd2511f53u, c.x), low0 = 0xd2511f53u * c.x;
        const unsigned int high1 = __umulhi(0xcd9e8d57u, c.z), low1 = 0xcd9e8d57u * c.z;
        c = make_uint4(high1 ^ c.y ^ key0, low1, high0 ^ c.w ^ key1, low0);
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    return c;
}

__device__ __forceinline__ float to_uniform(const unsigned int word) {
    return __fmul_rn(__uint2float_rn(word >> 8), 0x1p-24f);
}

__device__ __forceinline__ float4 uniforms(const Stream& stream, const unsigned long long block) {
    const uint4 words = philox(stream, block);
    return make_float4(to_uniform(words.x), to_uniform(words.y), to_uniform(words.z), to_uniform(words.w));
}

// Elements first .. first + n of the stream's uniforms. A thread takes one block of the stream, whose elements may
// begin before the first and end after the last.
extern "C" __global__ void __launch_bounds__(256)
philox_uniform(float* __restrict__ out, const unsigned long long n, const unsigned long long first,
               const unsigned int seed, const unsigned int tensor, const unsigned int step,
               const unsigned int purpose) {
    const Stream stream = {seed, tensor, step, purpose};
    const unsigned long long begin = blockIdx.x * static_cast<unsigned long long>(blockDim.x) + threadIdx.x;
    const unsigned long long stride = gridDim.x * static_cast<unsigned long long>(blockDim.x);
    const unsigned long long skipped = first % 4u, blocks = (skipped + n + 3u) / 4u;
    const bool whole = skipped == 0u && vectors(out);
    for (unsigned long long b = begin; b < blocks; b += stride) {
        const float4 x = uniforms(stream, first / 4u + b);
        if (whole && 4u * b + 4u <= n) {
            reinterpret_cast<float4*>(out)[b] = x;
            continue;
        }
        const float values[4] = {x.x, x.y, x.z, x.w};
        #pragma unroll
        for (unsigned int j = 0u; j < 4u; ++j) {
            const unsigned long long element = 4u * b + j;
            if (element >= skipped && element - skipped < n) out[element - skipped] = values[j];
        }
    }
}

// A normal is the sum of twelve uniforms, three whole blocks of the stream, less 6, times the deviation.
extern "C" __global__ void __launch_bounds__(256)
philox_normal(float* __restrict__ out, const unsigned long long n, const unsigned long long first,
              const unsigned int seed, const unsigned int tensor, const unsigned int step,
              const unsigned int purpose, const float deviation) {
    const Stream stream = {seed, tensor, step, purpose};
    const unsigned long long begin = blockIdx.x * static_cast<unsigned long long>(blockDim.x) + threadIdx.x;
    const unsigned long long stride = gridDim.x * static_cast<unsigned long long>(blockDim.x);
    for (unsigned long long i = begin; i < n; i += stride) {
        float sum = 0.0f;
        #pragma unroll
        for (unsigned int block = 0u; block < 3u; ++block) {
            const float4 u = uniforms(stream, 3u * (first + i) + block);
            // 0 + the first uniform is that uniform: none is -0.
            sum = __fadd_rn(__fadd_rn(__fadd_rn(__fadd_rn(sum, u.x), u.y), u.z), u.w);
        }
        out[i] = __fmul_rn(__fsub_rn(sum, 6.0f), deviation);
    }
}
