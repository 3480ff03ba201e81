// Attention, made of the products of tiles.cuh.

// One block of keys of the running softmax: scores become weights, the outputs are brought to the new maximum.
template <int R, int D>
__device__ __forceinline__ void soften(const Lane& lane, const Tiles<R, D>& tiles, float (&scores)[R][8],
                                       float (&m)[R], float (&l)[R], float (&outputs)[R][D / 8], const float c2,
                                       const unsigned int row, const unsigned int column) {
    #pragma unroll
    for (int i = 0; i < R; ++i) {
        const unsigned int query = row + tiles.row_of(lane, i);
        float next = m[i];
        #pragma unroll
        for (int j = 0; j < 8; ++j) {
            scores[i][j] = __fmul_rn(scores[i][j], c2);
            if (column + column_of(lane, j) <= query) next = contract_max(scores[i][j], next);
        }
        #pragma unroll
        for (int apart = 4; apart > 0; apart >>= 1) {
            next = contract_max(__shfl_xor_sync(ALL_LANES, next, apart), next);
        }
        // Zeros of both signs may compete: + 0 makes the maximum independent of the order.
        next = __fadd_rn(next, 0.0f);
        #pragma unroll
        for (int j = 0; j < 8; ++j) {
            const float p = contract_exp2p(__fsub_rn(scores[i][j], next));
            scores[i][j] = column + column_of(lane, j) <= query ? p : 0.0f;
        }
        const float* p = scores[i];
        float sum = __fadd_rn(__fadd_rn(__fadd_rn(p[0], p[1]), __fadd_rn(p[2], p[3])),
                              __fadd_rn(__fadd_rn(p[4], p[5]), __fadd_rn(p[6], p[7])));
        #pragma unroll
        for (int apart = 4; apart > 0; apart >>= 1) sum = __fadd_rn(sum, __shfl_xor_sync(ALL_LANES, sum, apart));
        const float al = contract_exp2p(__fsub_rn(m[i], next));
        l[i] = __fmaf_rn(l[i], al, sum);
        m[i] = next;
        #pragma unroll
        for (int q = 0; q < D / 8; ++q) outputs[i][q] = __fmul_rn(outputs[i][q], al);
    }
}

template <int R, int D>
__device__ __forceinline__ void forward(const float* __restrict__ q, const float* __restrict__ k,
                                        const float* __restrict__ v, float* __restrict__ o, float* __restrict__ m_out,
                                        float* __restrict__ l_out, const unsigned int seq, const unsigned int heads,
                                        const unsigned int kv_heads, const unsigned int head_dim, const float c2,
                                        const bool in_fours) {
    using T = Tiles<R, D>;
    __shared__ __align__(16) T tiles;
    const Lane lane;
    const Place at(seq, heads, T::ROWS, true);
    const unsigned int kv_head = at.head / (heads / kv_heads);
    const Operand queries(q, at.batch, seq, heads, at.head, head_dim);
    const Operand keys(k, at.batch, seq, kv_heads, kv_head, head_dim);
    const Operand values(v, at.batch, seq, kv_heads, kv_head, head_dim);
    const unsigned int end = min(at.row + T::ROWS, seq);

    // Stages of a block of keys: the slices of the scores, then the pieces of the outputs.
    const unsigned int slices = (head_dim + SLICE - 1u) / SLICE, stages = slices + T::PIECES;
    const auto fetch = [&](const unsigned int buffer, const unsigned int column, const unsigned int stage) {
        if (column < end && stage < slices) {
            tiles.fetch_scores(buffer, queries, at.row, keys, column, stage, seq, head_dim, in_fours);
        } else if (column < end) {
            tiles.fetch_outputs(buffer, values, column + (stage - slices) * T::DEPTH, seq, head_dim, in_fours);
        }
        copies_end();
    };

    float m[R], l[R], scores[R][8], outputs[R][D / 8];
    #pragma unroll
    for (int i = 0; i < R; ++i) {
        m[i] = __int_as_float(0xff800000);
        l[i] = 0.0f;
    }
    clear(outputs);
    unsigned int buffer = 0u;
    for (unsigned int slice = 0u; RESIDENT && slice < slices; ++slice) {
        tiles.fetch_rows(tiles.resident(slice), queries, at.row, slice, seq, head_dim, in_fours);
    }
    fetch(0u, 0u, 0u);
    #pragma unroll 1
    for (unsigned int first = 0u; first < end; first += COLUMNS) {
        const bool masked = first + COLUMNS - 1u > at.row;
        clear(scores);
        #pragma unroll 1
        for (unsigned int stage = 0u; stage < stages; ++stage, buffer ^= 1u) {
            // What was fetched last has arrived, and all are done with what was before it: that buffer is filled again.
            copies_wait();
            __syncthreads();
            const bool last = stage + 1u == stages;
            fetch(buffer ^ 1u, last ? first + COLUMNS : first, last ? 0u : stage + 1u);
            if (stage < slices) {
                tiles.multiply_scores(buffer, stage, lane, scores);
                if (stage + 1u < slices) continue;
                soften(lane, tiles, scores, m, l, outputs, c2, at.row, first);
                tiles.put_weights(lane, scores, 0);
                if (!RESIDENT) tiles.put_weights(lane, scores, 1);
            } else {
                const unsigned int depth = (stage - slices) * T::DEPTH;
                if (RESIDENT && depth == HALF) tiles.put_weights(lane, scores, 1);
                tiles.multiply_outputs(masked, buffer, lane, depth, outputs, [&](const int i, const unsigned int j) {
                    return first + depth + j <= at.row + tiles.row_of(lane, i);
                });
            }
        }
    }

    float inverse[R];
    #pragma unroll
    for (int i = 0; i < R; ++i) {
        inverse[i] = __frcp_rn(l[i]);
        const unsigned int query = at.row + tiles.row_of(lane, i);
        if (lane.c == 0u && query < seq) {
            const size_t stat = (static_cast<size_t>(at.batch) * heads + at.head) * seq + query;
            m_out[stat] = m[i];
            l_out[stat] = l[i];
        }
    }
    store_rows(outputs, o, at.batch, seq, heads, at.head, head_dim, at.row + tiles.row_of(lane, 0), lane.c * 4u, in_fours,
               [&](const int i) { return inverse[i]; });
}

// What the backward pass needs of each row but its vectors: D = R128(dO * O), and 1 / l. A warp takes a row of one head, a
// block neighbouring ones of the same head, whose numbers lie side by side: one warp reads and stores them for all.
#define PREPARE_ROWS 8

extern "C" __global__ void __launch_bounds__(256)
attention_prepare(const float* __restrict__ o, const float* __restrict__ dout, const float* __restrict__ l,
                  float* __restrict__ big_d, float* __restrict__ inverse, const unsigned int seq,
                  const unsigned int heads, const unsigned int head_dim, const unsigned int in_fours) {
    __shared__ float sums[PREPARE_ROWS];
    const unsigned int lane = threadIdx.x % WARP_LANES, warp = threadIdx.x / WARP_LANES;
    const unsigned int groups = (seq + PREPARE_ROWS - 1u) / PREPARE_ROWS;
    const unsigned int first = blockIdx.x % groups * PREPARE_ROWS, of_batch = blockIdx.x / groups;
    const unsigned int batch = of_batch / heads, head = of_batch % heads;
    if (first + warp < seq) {
        const size_t begin = ((static_cast<size_t>(batch) * seq + first + warp) * heads + head) * head_dim;
        const float* __restrict__ x = o + begin;
        const float* __restrict__ y = dout + begin;
        float4 a = splat(0.0f);
        for (unsigned int i = 4u * lane; i < head_dim; i += PASS) {
            // Beyond the end stands +0 times -0, which leaves an accumulator as it is.
            if (in_fours != 0u) {
                r128_fma(a, load4<true>(y, i, head_dim, -0.0f), load4<true>(x, i, head_dim, 0.0f));
            } else {
                r128_fma(a, load4<false>(y, i, head_dim, -0.0f), load4<false>(x, i, head_dim, 0.0f));
            }
        }
        __syncwarp();
        const float sum = r128_fold(a);
        if (lane == 0u) sums[warp] = sum;
    }
    __syncthreads();
    const unsigned int row = first + threadIdx.x;
    if (threadIdx.x >= PREPARE_ROWS || row >= seq) return;
    const size_t stat = static_cast<size_t>(of_batch) * seq + row;
    big_d[stat] = sums[threadIdx.x];
    inverse[stat] = __frcp_rn(l[stat]);
}

#define FORWARD(NAME, R, D, BLOCKS)                                                                                      \
    extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)                                                \
    NAME(const float* __restrict__ q, const float* __restrict__ k, const float* __restrict__ v,                  \
         float* __restrict__ o, float* __restrict__ m, float* __restrict__ l, const unsigned int seq,            \
         const unsigned int heads, const unsigned int kv_heads, const unsigned int head_dim, const float c2,     \
         const unsigned int in_fours) {                                                                          \
        forward<R, D>(q, k, v, o, m, l, seq, heads, kv_heads, head_dim, c2, in_fours != 0u);                     \
    }

// Blocks of short heads, whose resident rows leave room for fewer.
#if __CUDA_ARCH__ >= 800
#define SHORT_BLOCKS 2
#else
#define SHORT_BLOCKS 3
#endif

// The number in a name is the longest head. The last number is how many blocks must fit a multiprocessor, which bounds
// the registers of a thread.
FORWARD(attention_forward_64, 4, 64, SHORT_BLOCKS)
FORWARD(attention_forward_128, 4, 128, 2)

#define BACKWARD_INPUTS                                                                                        \
    const float *__restrict__ q, const float *__restrict__ k, const float *__restrict__ v,                     \
        const float *__restrict__ dout, const float *__restrict__ m, const float *__restrict__ big_d,          \
        const float *__restrict__ inverse
#define BACKWARD_SIZES                                                                                         \
    const unsigned int seq, const unsigned int heads, const unsigned int kv_heads, const unsigned int head_dim, \
        const float scale, const float c2, const unsigned int in_fours

// A launch asks for the shared memory that the constant beside the kernel says.
#define BACKWARD(WAY, TILES, D)                                                                                \
    extern "C" __device__ const unsigned int attention_backward_queries_##D##_shared_bytes = sizeof(TILES<D>);  \
    extern "C" __device__ const unsigned int attention_backward_keys_##D##_shared_bytes = sizeof(TILES<D>);     \
    extern "C" __global__ void __launch_bounds__(PAIR_THREADS, 1)                                              \
    attention_backward_queries_##D(BACKWARD_INPUTS, float* __restrict__ dq, BACKWARD_SIZES) {                  \
        const Pair<true> pair(q, k, v, dout, m, inverse, big_d, seq, heads, kv_heads, head_dim, in_fours != 0u); \
        WAY<D>(pair, dq, dq, scale, c2);                                                                       \
    }                                                                                                          \
    extern "C" __global__ void __launch_bounds__(PAIR_THREADS, 1)                                              \
    attention_backward_keys_##D(BACKWARD_INPUTS, float* __restrict__ dk, float* __restrict__ dv,               \
                                BACKWARD_SIZES) {                                                              \
        const Pair<false> pair(q, k, v, dout, m, inverse, big_d, seq, heads, kv_heads, head_dim,               \
                               in_fours != 0u);                                                                \
        WAY<D>(pair, dv, dk, scale, c2);                                                                       \
    }

#if __CUDA_ARCH__ >= 800
BACKWARD(backward_held, Held, 64)
#else
BACKWARD(backward_streamed, Streamed, 64)
#endif
BACKWARD(backward_streamed, Streamed, 128)
