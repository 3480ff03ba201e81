// The backward pass. Two groups of four warps share a block of 64 rows, which from sm_80 on stay in shared memory:
//
//   the first    s = rows0 x columns0,  then the weights p,   then outputs
//   the second   dp = rows1 x columns1, then ds = p (dp - D), then outputs
//
// By query, rows are Q and dO, columns K and V, and each group takes half of the elements of dq += ds K. By key, rows are
// K and V, columns Q and dO; the first group takes dv += p dO and the second dk += ds Q. So a lane holds the outputs of
// one product only, and eight warps ask for what four would. Weights are made for half of a block of columns at a time.

#define GROUPS 2
#define PAIR_THREADS (GROUPS * THREADS)
// Of each query: m, 1 / l, D.
#define STATS 3u
#define PAIR_ROWS 64u

// What a block works on. QUERY_ROWS: rows are queries; else keys, and columns the queries of all heads that read them.
template <bool QUERY_ROWS>
struct Pair {
    Lane lane;
    const float *rows0, *rows1, *columns0, *columns1;
    const float *m, *inverse, *big_d;
    Place at;
    unsigned int seq, heads, row_heads, column_heads, head_dim, first_head, first_row, group;
    bool in_fours;

    __device__ __forceinline__ Pair(const float* q, const float* k, const float* v, const float* dout,
                                    const float* of_m, const float* of_l, const float* of_d,
                                    const unsigned int length,
                                    const unsigned int query_heads, const unsigned int kv_heads,
                                    const unsigned int width, const bool fours)
        : rows0(QUERY_ROWS ? q : k),
          rows1(QUERY_ROWS ? dout : v),
          columns0(QUERY_ROWS ? k : q),
          columns1(QUERY_ROWS ? v : dout),
          m(of_m),
          inverse(of_l),
          big_d(of_d),
          at(length, QUERY_ROWS ? query_heads : kv_heads, PAIR_ROWS, QUERY_ROWS),
          seq(length),
          heads(query_heads),
          row_heads(QUERY_ROWS ? query_heads : kv_heads),
          column_heads(QUERY_ROWS ? kv_heads : query_heads),
          head_dim(width),
          first_head(QUERY_ROWS ? at.head / (query_heads / kv_heads) : at.head * (query_heads / kv_heads)),
          group(lane.warp / WARPS),
          in_fours(fours) {
        lane.warp %= WARPS;
        first_row = lane.warp * 16u + lane.r;
    }
    // The lane's row i, of the block and of the sequence.
    __device__ __forceinline__ unsigned int row(const int i) const { return at.row + first_row + 4u * i; }
    __device__ __forceinline__ Operand row_operand(const int of) const {
        return Operand(of == 0 ? rows0 : rows1, at.batch, seq, row_heads, at.head, head_dim);
    }
    __device__ __forceinline__ Operand column_operand(const int of, const unsigned int member) const {
        return Operand(of == 0 ? columns0 : columns1, at.batch, seq, column_heads, first_head + member, head_dim);
    }
    __device__ __forceinline__ const float* stat(const unsigned int which, const unsigned int head) const {
        const float* const from = which == 0u ? m : which == 1u ? inverse : big_d;
        return from + (static_cast<size_t>(at.batch) * heads + head) * seq;
    }
    __device__ __forceinline__ bool visible(const int i, const unsigned int column) const {
        return QUERY_ROWS ? column <= row(i) : column >= row(i) && column < seq;
    }
    // Whether a block of columns has pairs that are left out: by query the last has invisible ones; by key the first, and
    // the last one queries that do not exist.
    __device__ __forceinline__ bool masked(const unsigned int column) const {
        return column == at.row || (!QUERY_ROWS && column + COLUMNS > seq);
    }
};

// Where a walk over columns stands: `begin` to `end` for each of `members` heads, ascending. By query, keys up to the
// rows' own; by key, queries from there on.
struct Walk {
    unsigned int begin, end, members, member, column;
    template <bool QUERY_ROWS>
    __device__ __forceinline__ explicit Walk(const Pair<QUERY_ROWS>& pair)
        : begin(QUERY_ROWS ? 0u : pair.at.row),
          end(QUERY_ROWS ? pair.at.row + PAIR_ROWS : (pair.seq + COLUMNS - 1u) / COLUMNS * COLUMNS),
          members(QUERY_ROWS ? 1u : pair.column_heads / pair.row_heads),
          member(0u),
          column(begin) {}
    __device__ __forceinline__ bool ended() const { return member == members; }
    __device__ __forceinline__ void advance(const unsigned int by) {
        column += by;
        if (column < end) return;
        column = begin;
        ++member;
    }
};

// Chunks of four elements swap places within their row, so that the four rows that a warp reads at once lie in different
// banks.
template <int D>
__device__ __forceinline__ unsigned int row_place(const unsigned int row, const unsigned int chunk) {
    return row * D + (chunk ^ row % 4u) * 4u;
}

// The block's rows, WIDTH elements of each from WIDTH `slice` on.
template <int WIDTH, unsigned int COUNT, bool QUERY_ROWS>
__device__ __forceinline__ void fetch_pair_rows(float (&to)[GROUPS][COUNT], const Pair<QUERY_ROWS>& pair,
                                                const unsigned int slice) {
    #pragma unroll
    for (int of = 0; of < GROUPS; ++of) {
        const Operand rows = pair.row_operand(of);
        const auto piece = [&](const unsigned int index) {
            const unsigned int i = index / (WIDTH / 4), chunk = index % (WIDTH / 4);
            return Piece{to[of] + row_place<WIDTH>(i, chunk), rows.row(min(pair.at.row + i, pair.seq - 1u)),
                         slice * WIDTH + chunk * 4u};
        };
        fetch<COUNT / 4, PAIR_THREADS>(piece, pair.head_dim, PAD_ROWS, pair.in_fours);
    }
}

__device__ __forceinline__ void copy4(float* to, const float* from) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::
                 "r"(static_cast<unsigned int>(__cvta_generic_to_shared(to))), "l"(from) : "memory");
#else
    *to = *from;
#endif
}

// The numbers of COUNT queries from `column` on.
template <unsigned int COUNT, bool QUERY_ROWS>
__device__ __forceinline__ void fetch_stats(float (&to)[STATS][COUNT], const Pair<QUERY_ROWS>& pair,
                                            const unsigned int member, const unsigned int column) {
    const unsigned int which = threadIdx.x / COUNT, j = threadIdx.x % COUNT;
    if (which >= STATS) return;
    copy4(&to[which][j], pair.stat(which, pair.first_head + member) + min(column + j, pair.seq - 1u));
}

// CHUNKS further terms, four each, of the scores' chains: the rows' from chunk `first` on, score j's at
// `column_at(j, chunk)`.
template <int D, typename ColumnAt>
__device__ __forceinline__ void multiply_scores(const float* rows, const Lane& lane, const unsigned int first_row,
                                                const unsigned int first, const unsigned int chunks,
                                                ColumnAt column_at, float (&scores)[4][8]) {
    const float* const of_rows = rows + first_row * D;
    #pragma unroll 1
    for (unsigned int chunk = 0u; chunk < chunks; ++chunk) {
        const float* const of_lane = of_rows + ((first + chunk) ^ lane.r) * 4u;
        float4 y[8];
        #pragma unroll
        for (int j = 0; j < 8; ++j) y[j] = *reinterpret_cast<const float4*>(column_at(j, chunk));
        #pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float4 x = *reinterpret_cast<const float4*>(of_lane + 4 * i * D);
            #pragma unroll
            for (int j = 0; j < 8; ++j) scores[i][j] = __fmaf_rn(x.x, y[j].x, scores[i][j]);
            #pragma unroll
            for (int j = 0; j < 8; ++j) scores[i][j] = __fmaf_rn(x.y, y[j].y, scores[i][j]);
            #pragma unroll
            for (int j = 0; j < 8; ++j) scores[i][j] = __fmaf_rn(x.z, y[j].z, scores[i][j]);
            #pragma unroll
            for (int j = 0; j < 8; ++j) scores[i][j] = __fmaf_rn(x.w, y[j].w, scores[i][j]);
        }
    }
}

// COUNT more terms of each output's chain, from weight `first` of the half on. The lane's part of a column's row is at
// `column_at(column)`, columns counting from `first`, each four of them at distances of PITCH.
template <int E, int PITCH, unsigned int COUNT, bool MASKED, bool QUERY_ROWS, typename ColumnAt>
__device__ __forceinline__ void multiply_outputs(const float* weights, const Pair<QUERY_ROWS>& pair,
                                                 const unsigned int first, const unsigned int first_column,
                                                 ColumnAt column_at, float (&outputs)[4][E / 8]) {
    const float* const of_rows = weights + pair.first_row * HALF + first;
    #pragma unroll 1
    for (unsigned int column = 0u; column < COUNT; column += 4u) {
        const float* const of_lane = column_at(column);
        float4 w[4];
        #pragma unroll
        for (int i = 0; i < 4; ++i) w[i] = *reinterpret_cast<const float4*>(of_rows + 4 * i * HALF + column);
        #pragma unroll
        for (unsigned int u = 0u; u < 4u; ++u) {
            #pragma unroll
            for (int q = 0; q < E / 32; ++q) {
                const float4 x = *reinterpret_cast<const float4*>(of_lane + u * PITCH + 32 * q);
                #pragma unroll
                for (int i = 0; i < 4; ++i) {
                    if (MASKED && !pair.visible(i, first_column + column + u)) continue;
                    const float weight = u == 0u ? w[i].x : u == 1u ? w[i].y : u == 2u ? w[i].z : w[i].w;
                    outputs[i][4 * q] = __fmaf_rn(weight, x.x, outputs[i][4 * q]);
                    outputs[i][4 * q + 1] = __fmaf_rn(weight, x.y, outputs[i][4 * q + 1]);
                    outputs[i][4 * q + 2] = __fmaf_rn(weight, x.z, outputs[i][4 * q + 2]);
                    outputs[i][4 * q + 3] = __fmaf_rn(weight, x.w, outputs[i][4 * q + 3]);
                }
            }
        }
    }
}

// What the block's rows need of the forward pass, by query: m and 1 / l in the first group, D in the second.
struct RowStats {
    float first[4], second[4];
    template <bool QUERY_ROWS>
    __device__ __forceinline__ explicit RowStats(const Pair<QUERY_ROWS>& pair) {
        #pragma unroll
        for (int i = 0; QUERY_ROWS && i < 4; ++i) {
            const unsigned int query = min(pair.row(i), pair.seq - 1u);
            first[i] = pair.stat(pair.group == 0u ? 0u : 2u, pair.at.head)[query];
            second[i] = pair.stat(1u, pair.at.head)[query];
        }
    }
};

// A lane's four numbers of a half's queries.
template <unsigned int COUNT>
__device__ __forceinline__ float4 of_columns(const float (&stats)[COUNT], const unsigned int first) {
    return *reinterpret_cast<const float4*>(stats + first);
}

// Scores 4h .. 4h+3 of the first group become weights, and are laid where the second group and the warp itself read
// them; `stats` are those of the half's queries, by key.
template <bool QUERY_ROWS, unsigned int COUNT>
__device__ __forceinline__ void weigh(float (&weights)[GROUPS][PAIR_ROWS * HALF], const Pair<QUERY_ROWS>& pair,
                                      const RowStats& rows, const float (&stats)[STATS][COUNT],
                                      const unsigned int first, const float (&scores)[4][8], const int h,
                                      const float c2) {
    float4 m, inverse;
    if (!QUERY_ROWS) m = of_columns(stats[0], first), inverse = of_columns(stats[1], first);
    #pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (QUERY_ROWS) m = splat(rows.first[i]), inverse = splat(rows.second[i]);
        *reinterpret_cast<float4*>(weights[0] + (pair.first_row + 4u * i) * HALF + pair.lane.c * 4u) =
            make_float4(weight_of(scores[i][4 * h], c2, m.x, inverse.x),
                        weight_of(scores[i][4 * h + 1], c2, m.y, inverse.y),
                        weight_of(scores[i][4 * h + 2], c2, m.z, inverse.z),
                        weight_of(scores[i][4 * h + 3], c2, m.w, inverse.w));
    }
}

// The second group: ds = p (dp - D).
template <bool QUERY_ROWS, unsigned int COUNT>
__device__ __forceinline__ void differentiate(float (&weights)[GROUPS][PAIR_ROWS * HALF],
                                              const Pair<QUERY_ROWS>& pair, const RowStats& rows,
                                              const float (&stats)[STATS][COUNT], const unsigned int first,
                                              const float (&scores)[4][8], const int h) {
    float4 d;
    if (!QUERY_ROWS) d = of_columns(stats[2], first);
    #pragma unroll
    for (int i = 0; i < 4; ++i) {
        if (QUERY_ROWS) d = splat(rows.first[i]);
        const unsigned int place = (pair.first_row + 4u * i) * HALF + pair.lane.c * 4u;
        const float4 p = *reinterpret_cast<const float4*>(weights[0] + place);
        *reinterpret_cast<float4*>(weights[1] + place) =
            make_float4(__fmul_rn(p.x, __fsub_rn(scores[i][4 * h], d.x)),
                        __fmul_rn(p.y, __fsub_rn(scores[i][4 * h + 1], d.y)),
                        __fmul_rn(p.z, __fsub_rn(scores[i][4 * h + 2], d.z)),
                        __fmul_rn(p.w, __fsub_rn(scores[i][4 * h + 3], d.w)));
    }
}

// Both weights of a half, between barriers: where all read what the second group wrote, and where a warp reads its own.
template <bool QUERY_ROWS, unsigned int COUNT>
__device__ __forceinline__ void make_weights(float (&weights)[GROUPS][PAIR_ROWS * HALF],
                                             const Pair<QUERY_ROWS>& pair, const RowStats& rows,
                                             const float (&stats)[STATS][COUNT], const unsigned int first,
                                             const float (&scores)[4][8], const int h, const float c2) {
    if (pair.group == 0u) weigh(weights, pair, rows, stats, first, scores, h, c2);
    __syncthreads();
    if (pair.group == 1u) differentiate(weights, pair, rows, stats, first, scores, h);
    if (QUERY_ROWS) {
        __syncthreads();
    } else {
        __syncwarp();
    }
}

// Each group's outputs: half of dq's elements; or all of dv's, `first`, and of dk's, `second`.
template <int E, bool QUERY_ROWS>
__device__ __forceinline__ void store_pair(const Pair<QUERY_ROWS>& pair, const float (&outputs)[4][E / 8],
                                           float* first, float* second, const float scale) {
    const bool scaled = QUERY_ROWS || pair.group == 1u;
    store_rows(outputs, pair.group == 0u ? first : second, pair.at.batch, pair.seq, pair.row_heads, pair.at.head,
               pair.head_dim, pair.row(0), (QUERY_ROWS ? pair.group * E : 0u) + pair.lane.c * 4u, pair.in_fours,
               [&](const int) { return scaled ? scale : 1.0f; });
}
