// The lossy codecs. Bytes may begin anywhere: in int8 the codes stand behind one byte per block.
//
// An encoder that feeds its error back must leave the residual alone if any element has no encoding. So a first kernel
// looks at all elements and lowers the status word, and the encoder that is launched after it does nothing if it finds
// it lowered.

#define INT8_BITS 8

__device__ __forceinline__ unsigned int bf16_of(const float x) {
    const unsigned int bits = __float_as_uint(x);
    // A NaN whose mantissa is all ones must not be rounded up into a zero.
    if (!is_finite(x)) return bits >> 16;
    return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}

__device__ __forceinline__ float of_bf16(const unsigned int half) { return __uint_as_float(half << 16); }

// N bytes of a word, lowest first, to any address.
template <int N>
__device__ __forceinline__ void store_bytes(unsigned char* to, const unsigned int word) {
    if ((reinterpret_cast<unsigned long long>(to) & (N - 1)) == 0u) {
        if (N == 4) {
            *reinterpret_cast<unsigned int*>(to) = word;
        } else {
            *reinterpret_cast<unsigned short*>(to) = static_cast<unsigned short>(word);
        }
    } else {
        #pragma unroll
        for (int i = 0; i < N; ++i) to[i] = static_cast<unsigned char>(word >> (8 * i));
    }
}

template <int N>
__device__ __forceinline__ unsigned int load_bytes(const unsigned char* from) {
    if ((reinterpret_cast<unsigned long long>(from) & (N - 1)) == 0u) {
        return N == 4 ? *reinterpret_cast<const unsigned int*>(from)
                      : *reinterpret_cast<const unsigned short*>(from);
    }
    unsigned int word = 0u;
    #pragma unroll
    for (int i = 0; i < N; ++i) word |= static_cast<unsigned int>(from[i]) << (8 * i);
    return word;
}

// Four words of N bytes, to any address that their array may begin at: in one access where it allows that.
template <int N>
__device__ __forceinline__ void store_words(unsigned char* to, const unsigned int (&words)[4]) {
    if ((reinterpret_cast<unsigned long long>(to) & (4 * N - 1)) == 0u) {
        if (N == 4) {
            *reinterpret_cast<uint4*>(to) = make_uint4(words[0], words[1], words[2], words[3]);
        } else {
            *reinterpret_cast<uint2*>(to) = make_uint2(words[0] | words[1] << 16, words[2] | words[3] << 16);
        }
    } else {
        #pragma unroll
        for (int j = 0; j < 4; ++j) store_bytes<N>(to + N * j, words[j]);
    }
}

template <int N>
__device__ __forceinline__ void load_words(const unsigned char* from, unsigned int (&words)[4]) {
    if ((reinterpret_cast<unsigned long long>(from) & (4 * N - 1)) == 0u) {
        if (N == 4) {
            const uint4 all = *reinterpret_cast<const uint4*>(from);
            words[0] = all.x, words[1] = all.y, words[2] = all.z, words[3] = all.w;
        } else {
            const uint2 all = *reinterpret_cast<const uint2*>(from);
            words[0] = all.x & 0xffffu, words[1] = all.x >> 16, words[2] = all.y & 0xffffu, words[3] = all.y >> 16;
        }
    } else {
        #pragma unroll
        for (int j = 0; j < 4; ++j) words[j] = load_bytes<N>(from + N * j);
    }
}

// What is encoded: x, or x + residual.
template <bool FEEDBACK>
__device__ __forceinline__ float4 fetch(const float* x, const float* residual, const bool in_fours,
                                        const unsigned int i, const unsigned int n) {
    // Element i + 3 may lie beyond the end of an array that begins on 16 bytes.
    const bool whole = in_fours && i + 4u <= n;
    float4 v = whole ? load4<true>(x, i, n, 0.0f) : load4<false>(x, i, n, 0.0f);
    if (FEEDBACK) {
        v = add4(v, whole ? load4<true>(residual, i, n, 0.0f) : load4<false>(residual, i, n, 0.0f));
    }
    return v;
}

__device__ __forceinline__ void keep(float* residual, const bool in_fours, const unsigned int i,
                                     const unsigned int n, const float4 v, const float4 back) {
    const float4 left = make_float4(__fsub_rn(v.x, back.x), __fsub_rn(v.y, back.y), __fsub_rn(v.z, back.z),
                                    __fsub_rn(v.w, back.w));
    if (in_fours && i + 4u <= n) {
        store4<true>(residual, i, n, left);
    } else {
        store4<false>(residual, i, n, left);
    }
}

// Whether all of x + residual has an encoding; `rounds` asks about the values rounded to bf16.
extern "C" __global__ void __launch_bounds__(256)
codec_check(const float* __restrict__ x, const float* __restrict__ residual, unsigned int* __restrict__ status,
            const unsigned int n, const unsigned int rounds) {
    const bool in_fours = vectors(x, residual);
    for (unsigned int i = 4u * (blockIdx.x * blockDim.x + threadIdx.x); i < n; i += 4u * gridDim.x * blockDim.x) {
        float4 v = fetch<true>(x, residual, in_fours, i, n);
        if (rounds != 0u) {
            v = make_float4(of_bf16(bf16_of(v.x)), of_bf16(bf16_of(v.y)), of_bf16(bf16_of(v.z)),
                            of_bf16(bf16_of(v.w)));
        }
        report_non_finite(status, i, v);
    }
}

template <bool FEEDBACK>
__device__ __forceinline__ void encode_int8(const float* __restrict__ x, float* __restrict__ residual,
                                            unsigned char* __restrict__ bytes, unsigned int* __restrict__ status,
                                            const unsigned int n, const unsigned int rows) {
    if (FEEDBACK && *status != NO_FAULT) return;
    const bool in_fours = (FEEDBACK ? vectors(x, residual) : vectors(x)) && (rows == 1u || n % 4u == 0u);
    const unsigned int blocks = (n + BLOCK_ELEMENTS - 1u) / BLOCK_ELEMENTS, lane = threadIdx.x % 32u;
    for (unsigned int place = warp_of_grid(); place < blocks * rows; place += warps_of_grid()) {
        // Rows are encoded one by one: each has its exponents in front of its codes.
        const unsigned int row = place / blocks, block = place % blocks, first = row * n;
        const unsigned int i = block * BLOCK_ELEMENTS + 4u * lane;
        const float4 v = fetch<FEEDBACK>(x + first, residual, in_fours, i, n);
        if (!FEEDBACK) report_non_finite(status, first + i, v);
        const int e = block_exponent(v);
        const float factor = to_code(INT8_BITS, e), back = from_code(INT8_BITS, e);
        const int q[4] = {quantise(v.x, factor, INT8_BITS), quantise(v.y, factor, INT8_BITS),
                          quantise(v.z, factor, INT8_BITS), quantise(v.w, factor, INT8_BITS)};
        unsigned char* const begin = bytes + static_cast<size_t>(row) * (blocks + n);
        if (lane == 0u) begin[block] = static_cast<unsigned char>(e);
        unsigned char* to = begin + blocks + i;
        if (i + 4u <= n) {
            store_bytes<4>(to, (q[0] & 255) | (q[1] & 255) << 8 | (q[2] & 255) << 16 |
                                   static_cast<unsigned int>(q[3]) << 24);
        } else {
            #pragma unroll
            for (unsigned int j = 0u; j < 3u; ++j) {
                if (i + j < n) to[j] = static_cast<unsigned char>(q[j]);
            }
        }
        if (FEEDBACK) {
            keep(residual, in_fours, i, n, v,
                 make_float4(__fmul_rn(__int2float_rn(q[0]), back), __fmul_rn(__int2float_rn(q[1]), back),
                             __fmul_rn(__int2float_rn(q[2]), back), __fmul_rn(__int2float_rn(q[3]), back)));
        }
    }
}

extern "C" __global__ void __launch_bounds__(256)
codec_encode_int8(const float* __restrict__ x, unsigned char* __restrict__ bytes, unsigned int* __restrict__ status,
                  const unsigned int n, const unsigned int rows) {
    encode_int8<false>(x, nullptr, bytes, status, n, rows);
}

extern "C" __global__ void __launch_bounds__(256)
codec_feedback_int8(const float* __restrict__ x, float* __restrict__ residual, unsigned char* __restrict__ bytes,
                    unsigned int* __restrict__ status, const unsigned int n) {
    encode_int8<true>(x, residual, bytes, status, n, 1u);
}

// The formats of one word per element: BYTES is 2 for bf16, 4 for f32.
template <int BYTES, bool FEEDBACK>
__device__ __forceinline__ void encode_words(const float* __restrict__ x, float* __restrict__ residual,
                                             unsigned char* __restrict__ bytes, unsigned int* __restrict__ status,
                                             const unsigned int n) {
    if (FEEDBACK && *status != NO_FAULT) return;
    const bool in_fours = FEEDBACK ? vectors(x, residual) : vectors(x);
    for (unsigned int i = 4u * (blockIdx.x * blockDim.x + threadIdx.x); i < n; i += 4u * gridDim.x * blockDim.x) {
        const float4 v = fetch<FEEDBACK>(x, residual, in_fours, i, n);
        const float values[4] = {v.x, v.y, v.z, v.w};
        float back[4];
        unsigned int words[4];
        #pragma unroll
        for (unsigned int j = 0u; j < 4u; ++j) {
            words[j] = BYTES == 2 ? bf16_of(values[j]) : __float_as_uint(values[j]);
            back[j] = BYTES == 2 ? of_bf16(words[j]) : values[j];
        }
        unsigned char* const to = bytes + static_cast<size_t>(BYTES) * i;
        if (i + 4u <= n) {
            store_words<BYTES>(to, words);
        } else {
            #pragma unroll
            for (unsigned int j = 0u; j < 3u; ++j) {
                if (i + j < n) store_bytes<BYTES>(to + BYTES * j, words[j]);
            }
        }
        const float4 decoded = make_float4(back[0], back[1], back[2], back[3]);
        if (FEEDBACK) {
            keep(residual, in_fours, i, n, v, decoded);
        } else {
            report_non_finite(status, i, decoded);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256)
codec_encode_bf16(const float* __restrict__ x, unsigned char* __restrict__ bytes, unsigned int* __restrict__ status,
                  const unsigned int n) {
    encode_words<2, false>(x, nullptr, bytes, status, n);
}

extern "C" __global__ void __launch_bounds__(256)
codec_feedback_bf16(const float* __restrict__ x, float* __restrict__ residual, unsigned char* __restrict__ bytes,
                    unsigned int* __restrict__ status, const unsigned int n) {
    encode_words<2, true>(x, residual, bytes, status, n);
}

extern "C" __global__ void __launch_bounds__(256)
codec_encode_f32(const float* __restrict__ x, unsigned char* __restrict__ bytes, unsigned int* __restrict__ status,
                 const unsigned int n) {
    encode_words<4, false>(x, nullptr, bytes, status, n);
}

extern "C" __global__ void __launch_bounds__(256)
codec_feedback_f32(const float* __restrict__ x, float* __restrict__ residual, unsigned char* __restrict__ bytes,
                   unsigned int* __restrict__ status, const unsigned int n) {
    encode_words<4, true>(x, residual, bytes, status, n);
}

// The status is lowered to the first block that no encoder writes.
extern "C" __global__ void __launch_bounds__(256)
codec_decode_int8(const unsigned char* __restrict__ bytes, float* __restrict__ y, unsigned int* __restrict__ status,
                  const unsigned int n, const unsigned int rows) {
    const bool in_fours = vectors(y) && (rows == 1u || n % 4u == 0u);
    const unsigned int blocks = (n + BLOCK_ELEMENTS - 1u) / BLOCK_ELEMENTS, lane = threadIdx.x % 32u;
    for (unsigned int place = warp_of_grid(); place < blocks * rows; place += warps_of_grid()) {
        const unsigned int row = place / blocks, block = place % blocks;
        const unsigned int i = block * BLOCK_ELEMENTS + 4u * lane;
        const unsigned char* const begin = bytes + static_cast<size_t>(row) * (blocks + n);
        const unsigned char* from = begin + blocks + i;
        int q[4] = {0, 0, 0, 0};
        if (i + 4u <= n) {
            const unsigned int word = load_bytes<4>(from);
            #pragma unroll
            for (int j = 0; j < 4; ++j) q[j] = static_cast<signed char>(word >> (8 * j));
        } else {
            #pragma unroll
            for (unsigned int j = 0u; j < 3u; ++j) {
                if (i + j < n) q[j] = static_cast<signed char>(from[j]);
            }
        }
        const int e = static_cast<signed char>(begin[block]);
        const unsigned int largest =
            warp_largest(max(max(abs(q[0]), abs(q[1])), max(abs(q[2]), abs(q[3]))));
        const bool known = e >= EXPONENT_MIN && e <= EXPONENT_MAX;
        const bool canonical = known && largest < 128u && (largest >= 64u || e == EXPONENT_MIN);
        if (!canonical && lane == 0u) atomicMin(status, place);
        const float back = from_code(INT8_BITS, known ? e : 0);
        const float4 value =
            make_float4(__fmul_rn(__int2float_rn(q[0]), back), __fmul_rn(__int2float_rn(q[1]), back),
                        __fmul_rn(__int2float_rn(q[2]), back), __fmul_rn(__int2float_rn(q[3]), back));
        if (in_fours && i + 4u <= n) {
            store4<true>(y + static_cast<size_t>(row) * n, i, n, value);
        } else {
            store4<false>(y + static_cast<size_t>(row) * n, i, n, value);
        }
    }
}

// The status is lowered to the first element that is not finite.
template <int BYTES>
__device__ __forceinline__ void decode_words(const unsigned char* __restrict__ bytes, float* __restrict__ y,
                                             unsigned int* __restrict__ status, const unsigned int n) {
    const bool in_fours = vectors(y);
    for (unsigned int i = 4u * (blockIdx.x * blockDim.x + threadIdx.x); i < n; i += 4u * gridDim.x * blockDim.x) {
        const unsigned char* const from = bytes + static_cast<size_t>(BYTES) * i;
        const bool whole = i + 4u <= n;
        unsigned int words[4] = {0u, 0u, 0u, 0u};
        if (whole) {
            load_words<BYTES>(from, words);
        } else {
            #pragma unroll
            for (unsigned int j = 0u; j < 3u; ++j) {
                if (i + j < n) words[j] = load_bytes<BYTES>(from + BYTES * j);
            }
        }
        float values[4];
        #pragma unroll
        for (int j = 0; j < 4; ++j) values[j] = BYTES == 2 ? of_bf16(words[j]) : __uint_as_float(words[j]);
        const float4 value = make_float4(values[0], values[1], values[2], values[3]);
        report_non_finite(status, i, value);
        if (in_fours && whole) {
            store4<true>(y, i, n, value);
        } else {
            store4<false>(y, i, n, value);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256)
codec_decode_bf16(const unsigned char* __restrict__ bytes, float* __restrict__ y, unsigned int* __restrict__ status,
                  const unsigned int n) {
    decode_words<2>(bytes, y, status, n);
}

extern "C" __global__ void __launch_bounds__(256)
codec_decode_f32(const unsigned char* __restrict__ bytes, float* __restrict__ y, unsigned int* __restrict__ status,
                 const unsigned int n) {
    decode_words<4>(bytes, y, status, n);
}
