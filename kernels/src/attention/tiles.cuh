// Causal attention with grouped queries: forward, and backward by query (dq) and by key (dk, dv).
//
// All three kernels are made of the same two products. A block of four warps (of a pair of four in the backward pass:
// pair.cuh) owns ROWS rows (queries, or keys for dk and dv) and walks over blocks of 64 columns (keys, or queries):
//
//   scores    [ROWS, 64]  =  rows x columns, one chain over the head's elements, ascending
//   outputs   [ROWS, D]  +=  weights [ROWS, 64] x the columns' own rows, one chain over the columns, ascending
//
// A warp owns 4 R rows: lane 8r + c holds R of them (4i + r) and, of each block, the columns 4c .. 4c+3 and
// 32 + 4c .. 32 + 4c+3, so that the softmax's sum over groups of four is the lane's own and its tree ends in three
// shuffles. The outputs' columns 32q + 4c .. +3 are the lane's as well. What a row needs never leaves its warp but
// through shared memory that is the warp's alone.
//
// Operands come through two buffers in stages: 16 elements of the head for the scores, whole rows for the outputs;
// while one is multiplied, the next is on its way (cp.async; before sm_80 it is fetched at once). All shared memory is
// read in float4, and no eight lanes that are served together meet in a bank. From sm_80 on rows come once and stay; before,
// they come again for every 64 columns.
//
// Chains never skip or add a term: beyond the head's end stand +0 (rows) and -0 (columns), whose products leave an
// accumulator as it is, -0 included; invisible pairs are left out by a select.

#define COLUMNS 64
#define HALF 32u
#define WARPS 4
#define THREADS 128
// Elements of the head in one stage of the scores.
#define SLICE 16

#define PAD_ROWS 0.0f
#define PAD_COLUMNS (-0.0f)

struct Lane {
    unsigned int warp, r, c;
    __device__ __forceinline__ Lane() : warp(threadIdx.x / 32u), r(threadIdx.x % 32u / 8u), c(threadIdx.x % 8u) {}
};

// The rows of one head of one sequence.
struct Operand {
    const float* first;
    unsigned int pitch;
    __device__ __forceinline__ Operand(const float* base, const unsigned int batch, const unsigned int seq,
                                       const unsigned int heads, const unsigned int head,
                                       const unsigned int head_dim)
        : first(base + (static_cast<size_t>(batch) * seq * heads + head) * head_dim), pitch(heads * head_dim) {}
    __device__ __forceinline__ const float* row(const unsigned int i) const {
        return first + static_cast<size_t>(i) * pitch;
    }
};

// Where float4 `chunk` of a row of four lies: neighbours swap places so that rows two apart do not meet in a bank.
__device__ __forceinline__ unsigned int slot(const unsigned int row, const unsigned int chunk) {
    return (row * 4u + (chunk ^ (row / 2u % 4u))) * 4u;
}

// Columns 4c + t for all c lie side by side, so that a lane's fellows read neighbouring rows.
__device__ __forceinline__ unsigned int column_place(const unsigned int column) {
    return column % 4u * 16u + column / 4u;
}

__device__ __forceinline__ void copy16(float* to, const float* from) {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::
                 "r"(static_cast<unsigned int>(__cvta_generic_to_shared(to))), "l"(from) : "memory");
#else
    *reinterpret_cast<float4*>(to) = *reinterpret_cast<const float4*>(from);
#endif
}

__device__ __forceinline__ void copies_end() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

__device__ __forceinline__ void copies_wait() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group 0;" ::: "memory");
#endif
}

// Four elements on their way to shared memory: elements at .. at+3 of a row.
struct Piece {
    float* to;
    const float* row;
    unsigned int at;
};

// A stage of scores: four elements of a column from `column` on, sixteen of each from slice `slice`.
__device__ __forceinline__ Piece column_piece(float* to, const Operand& columns, const unsigned int column,
                                              const unsigned int slice, const unsigned int seq,
                                              const unsigned int index) {
    // Eight threads that are served together store columns four apart, which are neighbours.
    const unsigned int j = index / 4u, chunk = index % 4u;
    const unsigned int i = j / 8u * 8u + j % 2u * 4u + j / 2u % 4u;
    return Piece{to + slot(column_place(i), chunk), columns.row(min(column + i, seq - 1u)), slice * SLICE + chunk * 4u};
}

// The block fetches COUNT pieces, `piece(index)` each; from the head's end on they are `pad`.
template <unsigned int COUNT, unsigned int SHARERS = THREADS, typename PieceOf>
__device__ __forceinline__ void fetch(PieceOf piece, const unsigned int head_dim, const float pad,
                                      const bool in_fours) {
    if (in_fours) {
        #pragma unroll
        for (unsigned int first = 0u; first < COUNT; first += SHARERS) {
            const Piece one = piece(first + threadIdx.x);
            if (one.at < head_dim) {
                copy16(one.to, one.row + one.at);
            } else {
                *reinterpret_cast<float4*>(one.to) = splat(pad);
            }
        }
    } else {
        #pragma unroll 1
        for (unsigned int first = 0u; first < COUNT; first += SHARERS) {
            const Piece one = piece(first + threadIdx.x);
            *reinterpret_cast<float4*>(one.to) = load4<false>(one.row, one.at, head_dim, pad);
        }
    }
}

// Whether the rows of the scores stay. With two buffers and weights for half a block of columns they fill the 48 KiB that
// a block may have without asking; where a multiprocessor holds 64 KiB that would leave it a single block.
#if __CUDA_ARCH__ >= 800
#define RESIDENT true
#else
#define RESIDENT false
#endif

template <int R, int D>
struct Tiles {
    static constexpr unsigned int ROWS = 4 * WARPS * R;
    // Floats of a stage: sixteen elements of columns, and of rows if these do not stay; or some columns' whole rows.
    static constexpr unsigned int STAGE = RESIDENT && D > 64 ? COLUMNS * SLICE : (ROWS + COLUMNS) * SLICE;
    // Columns in one stage of the outputs.
    static constexpr unsigned int DEPTH = STAGE / D;
    // Columns whose weights there is room for.
    static constexpr unsigned int WEIGHTS = RESIDENT ? HALF : COLUMNS;
    // Stages of a block's outputs.
    static constexpr unsigned int PIECES = COLUMNS / DEPTH;
    static_assert(DEPTH % 4 == 0 && COLUMNS % DEPTH == 0 && R % 2 == 0, "stages divide evenly");

    // Where the columns begin in a stage that fetched its rows as well.
    static constexpr unsigned int BEHIND_ROWS = RESIDENT ? 0 : ROWS * SLICE;

    float stage[2][STAGE];
    // Behind the weights, where they are resident: the rows, slice by slice.
    float weights[ROWS * WEIGHTS + (RESIDENT ? ROWS * D : 0u)];

    // Slice `slice` of the resident rows.
    __device__ __forceinline__ float* resident(const unsigned int slice) {
        return weights + ROWS * WEIGHTS + slice * ROWS * SLICE;
    }

    // Fetches slice `slice` of the rows from `row` on. Rows that do not exist are read as the last one: what they lead
    // to is not stored, or left out.
    __device__ __forceinline__ void fetch_rows(float* to, const Operand& rows, const unsigned int row,
                                               const unsigned int slice, const unsigned int seq,
                                               const unsigned int head_dim, const bool in_fours) const {
        const auto piece = [&](const unsigned int index) {
            const unsigned int i = index / 4u, chunk = index % 4u;
            return Piece{to + slot(i, chunk), rows.row(min(row + i, seq - 1u)), slice * SLICE + chunk * 4u};
        };
        fetch<ROWS * 4u>(piece, head_dim, PAD_ROWS, in_fours);
    }

    // The same of the columns from `column` on, and of the rows unless they stay.
    __device__ __forceinline__ void fetch_scores(const unsigned int buffer, const Operand& rows,
                                                 const unsigned int row, const Operand& columns,
                                                 const unsigned int column, const unsigned int slice,
                                                 const unsigned int seq, const unsigned int head_dim,
                                                 const bool in_fours) {
        if (!RESIDENT) fetch_rows(stage[buffer], rows, row, slice, seq, head_dim, in_fours);
        const auto piece = [&](const unsigned int index) {
            return column_piece(stage[buffer] + BEHIND_ROWS, columns, column, slice, seq, index);
        };
        fetch<COLUMNS * 4u>(piece, head_dim, PAD_COLUMNS, in_fours);
    }

    // Fetches DEPTH columns' own rows from `column` on.
    __device__ __forceinline__ void fetch_outputs(const unsigned int buffer, const Operand& columns,
                                                  const unsigned int column, const unsigned int seq,
                                                  const unsigned int head_dim, const bool in_fours) {
        const auto piece = [&](const unsigned int index) {
            return Piece{stage[buffer] + index * 4u, columns.row(min(column + index / (D / 4u), seq - 1u)),
                         index % (D / 4u) * 4u};
        };
        fetch<STAGE / 4u>(piece, head_dim, 0.0f, in_fours);
    }

    __device__ __forceinline__ unsigned int row_of(const Lane& lane, const int i) const {
        return lane.warp * 4u * R + 4u * i + lane.r;
    }

    // One slice of the scores: sixteen more terms of each chain.
    __device__ __forceinline__ void multiply_scores(const unsigned int buffer, const unsigned int slice,
                                                    const Lane& lane, float (&scores)[R][8]) {
        // `slot` of the lane's first row and first column; the others lie at constant distances, but for the rows'
        // chunks, whose swap has its upper bit from i.
        const float* a = (RESIDENT ? resident(slice) : stage[buffer]) + row_of(lane, 0) * SLICE;
        const float* b = stage[buffer] + BEHIND_ROWS + lane.c * SLICE;
        #pragma unroll 1
        for (unsigned int chunk = 0u; chunk < SLICE / 4u; ++chunk) {
            const float* of_c = b + (chunk ^ (lane.c / 2u)) * 4u;
            const float* of_even = a + (chunk ^ (lane.r / 2u)) * 4u;
            const float* of_odd = a + (chunk ^ 2u ^ (lane.r / 2u)) * 4u;
            float4 of_column[8];
            #pragma unroll
            for (int j = 0; j < 8; ++j) {
                of_column[j] = *reinterpret_cast<const float4*>(of_c + (j % 4 * 16 + j / 4 * 8) * SLICE);
            }
            #pragma unroll
            for (int i = 0; i < R; ++i) {
                const float4 of_row =
                    *reinterpret_cast<const float4*>((i % 2 == 0 ? of_even : of_odd) + 4 * i * SLICE);
                #pragma unroll
                for (int j = 0; j < 8; ++j) scores[i][j] = __fmaf_rn(of_row.x, of_column[j].x, scores[i][j]);
                #pragma unroll
                for (int j = 0; j < 8; ++j) scores[i][j] = __fmaf_rn(of_row.y, of_column[j].y, scores[i][j]);
                #pragma unroll
                for (int j = 0; j < 8; ++j) scores[i][j] = __fmaf_rn(of_row.z, of_column[j].z, scores[i][j]);
                #pragma unroll
                for (int j = 0; j < 8; ++j) scores[i][j] = __fmaf_rn(of_row.w, of_column[j].w, scores[i][j]);
            }
        }
    }

    // The place of a lane's weights `4 half .. 4 half + 3` of its row i.
    __device__ __forceinline__ float4* weights_of(const Lane& lane, const int i, const int half) {
        return reinterpret_cast<float4*>(weights + (row_of(lane, 0) + 4u * i) * WEIGHTS + 32 * half % WEIGHTS +
                                         lane.c * 4u);
    }

    // Lays the weights of half a block where the warp's other lanes read them.
    __device__ __forceinline__ void put_weights(const Lane& lane, const float (&scores)[R][8], const int half) {
        __syncwarp();
        #pragma unroll
        for (int i = 0; i < R; ++i) {
            *weights_of(lane, i, half) = make_float4(scores[i][4 * half], scores[i][4 * half + 1],
                                                     scores[i][4 * half + 2], scores[i][4 * half + 3]);
        }
        __syncwarp();
    }

    // DEPTH more terms of each output's chain, from weight `first` of the block on, which was laid down. With MASKED, `visible(i, column)` says
    // which terms there are; columns count from the stage's first.
    template <bool MASKED, typename Visible>
    __device__ __forceinline__ void multiply_outputs(const unsigned int buffer, const Lane& lane,
                                                     const unsigned int first, float (&outputs)[R][D / 8],
                                                     Visible visible) const {
        const float* of_lane = stage[buffer] + lane.c * 4u;
        const float* of_rows = weights + row_of(lane, 0) * WEIGHTS + first % WEIGHTS;
        #pragma unroll 1
        for (unsigned int column = 0u; column < DEPTH; column += 4u) {
            float4 w[R];
            #pragma unroll
            for (int i = 0; i < R; ++i) {
                w[i] = *reinterpret_cast<const float4*>(of_rows + 4 * i * WEIGHTS + column);
            }
            #pragma unroll
            for (unsigned int u = 0u; u < 4u; ++u) {
                #pragma unroll
                for (int q = 0; q < D / 32; ++q) {
                    const float4 x = *reinterpret_cast<const float4*>(of_lane + (column + u) * D + 32 * q);
                    #pragma unroll
                    for (int i = 0; i < R; ++i) {
                        if (MASKED && !visible(i, column + u)) continue;
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

    // The same, the mask being looked at only where there is one.
    template <typename Visible>
    __device__ __forceinline__ void multiply_outputs(const bool masked, const unsigned int buffer, const Lane& lane,
                                                     const unsigned int first, float (&outputs)[R][D / 8],
                                                     Visible visible) const {
        if (masked) {
            multiply_outputs<true>(buffer, lane, first, outputs, visible);
        } else {
            multiply_outputs<false>(buffer, lane, first, outputs, visible);
        }
    }
};

// Stores a lane's rows `row`, row + 4 … below `seq`, each from `element` on and every element times `factor(i)`.
template <int R, int N, typename Factor>
__device__ __forceinline__ void store_rows(const float (&outputs)[R][N], float* base, const unsigned int batch,
                                           const unsigned int seq, const unsigned int heads, const unsigned int head,
                                           const unsigned int head_dim, const unsigned int row,
                                           const unsigned int element, const bool in_fours, Factor factor) {
    #pragma unroll
    for (int i = 0; i < R; ++i) {
        const unsigned int at = row + 4u * i;
        if (at >= seq) continue;
        float* to = base + ((static_cast<size_t>(batch) * seq + at) * heads + head) * head_dim;
        const float4 by = splat(factor(i));
        #pragma unroll
        for (int q = 0; q < N / 4; ++q) {
            const float4 value = mul4(make_float4(outputs[i][4 * q], outputs[i][4 * q + 1], outputs[i][4 * q + 2],
                                                  outputs[i][4 * q + 3]),
                                      by);
            if (in_fours) {
                store4<true>(to, element + 32u * q, head_dim, value);
            } else {
                store4<false>(to, element + 32u * q, head_dim, value);
            }
        }
    }
}

template <int R, int N>
__device__ __forceinline__ void clear(float (&values)[R][N]) {
    #pragma unroll
    for (int i = 0; i < R; ++i) {
        #pragma unroll
        for (int j = 0; j < N; ++j) values[i][j] = 0.0f;
    }
}

// The column of a block that a lane's score j belongs to.
__device__ __forceinline__ unsigned int column_of(const Lane& lane, const int j) {
    return j / 4 * 32 + lane.c * 4u + j % 4;
}

// Which work is this block's: the longest rows begin first, since all wait for the last to end.
struct Place {
    unsigned int batch, head, row;
    __device__ __forceinline__ Place(const unsigned int seq, const unsigned int heads, const unsigned int rows,
                                     const bool last_is_longest) {
        const unsigned int tiles = (seq + rows - 1u) / rows;
        const unsigned int sequences = gridDim.x / tiles;
        const unsigned int tile = blockIdx.x / sequences, which = blockIdx.x % sequences;
        batch = which / heads;
        head = which % heads;
        row = (last_is_longest ? tiles - 1u - tile : tile) * rows;
    }
};

// The weight p of a pair in the backward pass.
__device__ __forceinline__ float weight_of(const float score, const float c2, const float m, const float inverse) {
    return __fmul_rn(contract_exp2p(__fsub_rn(__fmul_rn(score, c2), m)), inverse);
}
