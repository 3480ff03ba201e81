// The backward pass before sm_80, whose multiprocessors hold 64 KiB of shared memory: nothing stays. Rows come again for
// every 64 columns, and columns twice where scores and outputs need them. A block is four warps.
#if __CUDA_ARCH__ < 800

template <int R, int D>
__device__ __forceinline__ void backward_queries(const float* __restrict__ q, const float* __restrict__ k,
                                                 const float* __restrict__ v, const float* __restrict__ dout,
                                                 const float* __restrict__ m_in, const float* __restrict__ big_d,
                                                 const float* __restrict__ inverse_in, float* __restrict__ dq,
                                                 const unsigned int seq, const unsigned int heads,
                                                 const unsigned int kv_heads, const unsigned int head_dim,
                                                 const float scale, const float c2, const bool in_fours) {
    using T = Tiles<R, D>;
    __shared__ __align__(16) T tiles;
    const Lane lane;
    const Place at(seq, heads, T::ROWS, true);
    const unsigned int kv_head = at.head / (heads / kv_heads);
    const unsigned int end = min(at.row + T::ROWS, seq);

    // Stages of a block of keys: the slices of s, those of dp, the pieces of dq.
    const unsigned int slices = (head_dim + SLICE - 1u) / SLICE, stages = 2u * slices + T::PIECES;
    const auto fetch = [&](const unsigned int buffer, const unsigned int column, const unsigned int stage) {
        if (column < end && stage < 2u * slices) {
            const bool of_s = stage < slices;
            const Operand rows(of_s ? q : dout, at.batch, seq, heads, at.head, head_dim);
            const Operand columns(of_s ? k : v, at.batch, seq, kv_heads, kv_head, head_dim);
            tiles.fetch_scores(buffer, rows, at.row, columns, column, of_s ? stage : stage - slices, seq, head_dim,
                               in_fours);
        } else if (column < end) {
            const Operand columns(k, at.batch, seq, kv_heads, kv_head, head_dim);
            tiles.fetch_outputs(buffer, columns, column + (stage - 2u * slices) * T::DEPTH, seq, head_dim, in_fours);
        }
        copies_end();
    };

    float m[R], inverse[R], d[R], scores[R][8], outputs[R][D / 8];
    #pragma unroll
    for (int i = 0; i < R; ++i) {
        const unsigned int query = min(at.row + tiles.row_of(lane, i), seq - 1u);
        const size_t stat = (static_cast<size_t>(at.batch) * heads + at.head) * seq + query;
        m[i] = m_in[stat];
        inverse[i] = inverse_in[stat];
        d[i] = big_d[stat];
    }
    clear(outputs);
    unsigned int buffer = 0u;
    fetch(0u, 0u, 0u);
    #pragma unroll 1
    for (unsigned int first = 0u; first < end; first += COLUMNS) {
        const bool masked = first + COLUMNS - 1u > at.row;
        clear(scores);
        #pragma unroll 1
        for (unsigned int stage = 0u; stage < stages; ++stage, buffer ^= 1u) {
            copies_wait();
            __syncthreads();
            const bool last = stage + 1u == stages;
            fetch(buffer ^ 1u, last ? first + COLUMNS : first, last ? 0u : stage + 1u);
            if (stage < 2u * slices) {
                tiles.multiply_scores(buffer, 0u, lane, scores);
                if (stage + 1u == slices) {
                    #pragma unroll
                    for (int i = 0; i < R; ++i) {
                        #pragma unroll
                        for (int j = 0; j < 8; ++j) scores[i][j] = weight_of(scores[i][j], c2, m[i], inverse[i]);
                    }
                    tiles.put_weights(lane, scores);
                    clear(scores);
                } else if (stage + 1u == 2u * slices) {
                    tiles.differentiate(lane, scores, [&](const int i, const int) { return d[i]; });
                    tiles.put_weights(lane, scores);
                }
            } else {
                const unsigned int depth = (stage - 2u * slices) * T::DEPTH;
                tiles.multiply_outputs(masked, buffer, lane, depth, outputs, [&](const int i, const unsigned int j) {
                    return first + depth + j <= at.row + tiles.row_of(lane, i);
                });
            }
        }
    }
    store_rows(outputs, dq, at.batch, seq, heads, at.head, head_dim, at.row + tiles.row_of(lane, 0), lane.c * 4u, in_fours,
               [&](const int) { return scale; });
}

// Rows are keys here, columns are queries: of all query heads that read the key head, ascending.
template <int R, int D>
__device__ __forceinline__ void backward_keys(const float* __restrict__ q, const float* __restrict__ k,
                                              const float* __restrict__ v, const float* __restrict__ dout,
                                              const float* __restrict__ m_in, const float* __restrict__ big_d,
                                              const float* __restrict__ inverse_in, float* __restrict__ dk,
                                              float* __restrict__ dv, const unsigned int seq,
                                              const unsigned int heads, const unsigned int kv_heads,
                                              const unsigned int head_dim, const float scale, const float c2,
                                              const bool in_fours) {
    using T = Tiles<R, D>;
    __shared__ __align__(16) T tiles;
    const Lane lane;
    const Place at(seq, kv_heads, T::ROWS, false);
    const unsigned int group = heads / kv_heads;
    const unsigned int begin = at.row / COLUMNS * COLUMNS;

    // Stages of a block of queries: the slices of s, the pieces of dv, the slices of dp, the pieces of dk.
    const unsigned int slices = (head_dim + SLICE - 1u) / SLICE, half = slices + T::PIECES, stages = 2u * half;
    const auto fetch = [&](const unsigned int buffer, const unsigned int member, const unsigned int column,
                           const unsigned int stage) {
        if (member < group) {
            const bool early = stage < half;
            const unsigned int within = early ? stage : stage - half, head = at.head * group + member;
            if (within < slices) {
                const Operand columns(early ? q : dout, at.batch, seq, heads, head, head_dim);
                const Operand rows(early ? k : v, at.batch, seq, kv_heads, at.head, head_dim);
                tiles.fetch_scores(buffer, rows, at.row, columns, column, within, seq, head_dim, in_fours);
            } else {
                const Operand columns(early ? dout : q, at.batch, seq, heads, head, head_dim);
                tiles.fetch_outputs(buffer, columns, column + (within - slices) * T::DEPTH, seq, head_dim, in_fours);
            }
        }
        copies_end();
    };

    float scores[R][8], of_values[R][D / 8], of_keys[R][D / 8];
    clear(of_values);
    clear(of_keys);
    unsigned int buffer = 0u, member = 0u, first = begin;
    fetch(0u, 0u, begin, 0u);
    while (member < group) {
        const size_t stats = (static_cast<size_t>(at.batch) * heads + at.head * group + member) * seq;
        const auto stat = [&](const int j) { return stats + min(first + column_of(lane, j), seq - 1u); };
        // The first block holds queries before the keys, the last one queries that do not exist.
        const bool masked = first < at.row + T::ROWS - 1u || first + COLUMNS > seq;
        const bool member_ends = first + COLUMNS >= seq;
        const unsigned int next_member = member_ends ? member + 1u : member;
        const unsigned int next_first = member_ends ? begin : first + COLUMNS;
        clear(scores);
        #pragma unroll 1
        for (unsigned int stage = 0u; stage < stages; ++stage, buffer ^= 1u) {
            copies_wait();
            __syncthreads();
            const bool last = stage + 1u == stages;
            fetch(buffer ^ 1u, last ? next_member : member, last ? next_first : first, last ? 0u : stage + 1u);
            const bool early = stage < half;
            const unsigned int within = early ? stage : stage - half;
            if (within < slices) {
                tiles.multiply_scores(buffer, within, lane, scores);
                if (within + 1u < slices) continue;
                if (early) {
                    #pragma unroll
                    for (int j = 0; j < 8; ++j) {
                        const float m = m_in[stat(j)], inverse = inverse_in[stat(j)];
                        #pragma unroll
                        for (int i = 0; i < R; ++i) scores[i][j] = weight_of(scores[i][j], c2, m, inverse);
                    }
                    tiles.put_weights(lane, scores);
                    clear(scores);
                } else {
                    float d[8];
                    #pragma unroll
                    for (int j = 0; j < 8; ++j) d[j] = big_d[stat(j)];
                    tiles.differentiate(lane, scores, [&](const int, const int j) { return d[j]; });
                    tiles.put_weights(lane, scores);
                }
                continue;
            }
            const unsigned int depth = (within - slices) * T::DEPTH;
            const auto visible = [&](const int i, const unsigned int j) {
                const unsigned int query = first + depth + j;
                return query >= at.row + tiles.row_of(lane, i) && query < seq;
            };
            if (early) {
                tiles.multiply_outputs(masked, buffer, lane, depth, of_values, visible);
            } else {
                tiles.multiply_outputs(masked, buffer, lane, depth, of_keys, visible);
            }
        }
        member = next_member;
        first = next_first;
    }
    store_rows(of_values, dv, at.batch, seq, kv_heads, at.head, head_dim, at.row + tiles.row_of(lane, 0), lane.c * 4u, in_fours,
               [&](const int) { return 1.0f; });
    store_rows(of_keys, dk, at.batch, seq, kv_heads, at.head, head_dim, at.row + tiles.row_of(lane, 0), lane.c * 4u, in_fours,
               [&](const int) { return scale; });
}

#endif
