// Where a pair of groups gets its columns from.

// Heads of at most 64 elements: nothing is fetched twice. Columns come in halves of a block, 32 at a time, into rings of
// three. The two halves that are multiplied stay until their outputs are made, and the third is on its way meanwhile; as
// soon as the outputs of a half are made, the next takes its place.
#define SLOTS 3u

template <int D>
struct Held {
    float rows[GROUPS][PAIR_ROWS * D];
    float columns[GROUPS][SLOTS][HALF * D];
    float weights[GROUPS][PAIR_ROWS * HALF];
    float stats[SLOTS][STATS][HALF];
};

// Chunks swap places so that the eight columns, four apart, that a warp reads at once lie in different banks.
template <int D>
__device__ __forceinline__ unsigned int column_place_held(const unsigned int column, const unsigned int chunk) {
    return column * D + (chunk ^ column / 4u % 8u) * 4u;
}

// All copies but those of the last group have arrived.
__device__ __forceinline__ void copies_wait_but_last() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group 1;" ::: "memory");
#endif
}

template <int D, bool QUERY_ROWS>
__device__ __forceinline__ void backward_held(const Pair<QUERY_ROWS>& pair, float* __restrict__ first_out,
                                              float* __restrict__ second_out, const float scale, const float c2) {
    // Elements of the outputs that are a group's.
    constexpr int E = QUERY_ROWS ? D / 2 : D;
    extern __shared__ __align__(16) unsigned char shared_memory[];
    Held<D>& tiles = *reinterpret_cast<Held<D>*>(shared_memory);
    const Lane& lane = pair.lane;

    Walk ahead(pair), here(pair);
    const auto fetch_half = [&](const unsigned int slot) {
        if (!ahead.ended()) {
            #pragma unroll
            for (int of = 0; of < GROUPS; ++of) {
                const Operand columns = pair.column_operand(of, ahead.member);
                const auto piece = [&](const unsigned int index) {
                    const unsigned int j = index / (D / 4), chunk = index % (D / 4);
                    return Piece{tiles.columns[of][slot] + column_place_held<D>(j, chunk),
                                 columns.row(min(ahead.column + j, pair.seq - 1u)), chunk * 4u};
                };
                fetch<HALF * D / 4, PAIR_THREADS>(piece, pair.head_dim, PAD_COLUMNS, pair.in_fours);
            }
            if (!QUERY_ROWS) fetch_stats(tiles.stats[slot], pair, ahead.member, ahead.column);
            ahead.advance(HALF);
        }
        copies_end();
    };
    fetch_pair_rows<D>(tiles.rows, pair, 0u);
    for (unsigned int slot = 0u; slot < SLOTS; ++slot) fetch_half(slot);

    const RowStats of_rows(pair);
    float scores[4][8], outputs[4][E / 8];
    clear(outputs);
    unsigned int slot = 0u;
    #pragma unroll 1
    for (; !here.ended(); here.advance(COLUMNS)) {
        const unsigned int slots[2] = {slot, slot + 1u == SLOTS ? 0u : slot + 1u};
        const bool masked = pair.masked(here.column);
        copies_wait_but_last();
        __syncthreads();
        clear(scores);
        const float* const of_halves[2] = {tiles.columns[pair.group][slots[0]] + 4u * lane.c * D,
                                           tiles.columns[pair.group][slots[1]] + 4u * lane.c * D};
        const auto column_at = [&](const int j, const unsigned int chunk) {
            return of_halves[j / 4] + j % 4 * D + (chunk ^ lane.c) * 4u;
        };
        multiply_scores<D>(tiles.rows[pair.group], lane, pair.first_row, 0u, (pair.head_dim + 3u) / 4u, column_at,
                           scores);
        #pragma unroll
        for (int h = 0; h < 2; ++h) {
            make_weights(tiles.weights, pair, of_rows, tiles.stats[slots[h]], lane.c * 4u, scores, h, c2);
            const float* const weights = tiles.weights[QUERY_ROWS ? 1u : pair.group];
            const float* const columns = tiles.columns[QUERY_ROWS ? 0u : 1u - pair.group][slots[h]] +
                                         (QUERY_ROWS ? pair.group * E : 0u);
            const auto output_at = [&](const unsigned int column) {
                return columns + column * D + (lane.c ^ column / 4u) * 4u;
            };
            const unsigned int first = here.column + HALF * h;
            if (masked) {
                multiply_outputs<E, D, HALF, true>(weights, pair, 0u, first, output_at, outputs);
            } else {
                multiply_outputs<E, D, HALF, false>(weights, pair, 0u, first, output_at, outputs);
            }
            // All are done with the half and its weights.
            __syncthreads();
            fetch_half(slots[h]);
        }
        slot = slots[1] + 1u == SLOTS ? 0u : slots[1] + 1u;
    }
    store_pair<E>(pair, outputs, first_out, second_out, scale);
}

// Longer heads, whose rows leave no room for two operands' columns, and all heads before sm_80, where not even rows stay:
// columns come in slices of 16 elements, as in the forward pass. While a slice is multiplied, threads take what outputs
// will need into registers, a float4 each of an operand; they lay it down again, some columns' whole rows at a time, when
// the outputs' turn has come. So nothing is fetched twice here either, but rows before sm_80.
template <int D>
struct Streamed {
    // Elements of the rows that are there at a time.
    static constexpr int WIDTH = RESIDENT ? D : SLICE;
    float rows[RESIDENT ? 1 : 2][GROUPS][PAIR_ROWS * WIDTH];
    float columns[2][GROUPS][COLUMNS * SLICE];
    float weights[GROUPS][PAIR_ROWS * HALF];
    float stats[STATS][COLUMNS];
};

// What a thread keeps of a block of columns: of OPERANDS operands a float4 of each slice. That is the one that lies at
// the thread's own place in the slice's stage, so that no banks meet.
template <int D, int OPERANDS>
struct Kept {
    static constexpr int SLICES = D / SLICE;
    float4 of_slice[OPERANDS][SLICES];
    // The column, and which float4 of a slice.
    unsigned int column, chunk;

    __device__ __forceinline__ Kept() {
        const unsigned int place = threadIdx.x / 4u;
        column = place % 16u * 4u + place / 16u;
        chunk = threadIdx.x % 4u ^ place / 2u % 4u;
        #pragma unroll
        for (int of = 0; of < OPERANDS; ++of) {
            #pragma unroll
            for (int s = 0; s < SLICES; ++s) of_slice[of][s] = splat(0.0f);
        }
    }

    __device__ __forceinline__ void take(const float (&columns)[GROUPS][COLUMNS * SLICE], const unsigned int slice) {
        #pragma unroll
        for (int s = 0; s < SLICES; ++s) {
            if (s != slice) continue;
            #pragma unroll
            for (int of = 0; of < OPERANDS; ++of) {
                of_slice[of][s] = reinterpret_cast<const float4*>(columns[of])[threadIdx.x];
            }
        }
    }

    // Lays down piece `piece` of DEPTH columns. Halves of eight chunks swap places in every other four columns, which
    // neighbouring threads have.
    template <unsigned int DEPTH>
    __device__ __forceinline__ void lay(float (&columns)[GROUPS][COLUMNS * SLICE], const unsigned int piece) const {
        if (column / DEPTH != piece) return;
        const unsigned int first = column % DEPTH * D + (chunk ^ half_of_chunks(column)) * 4u;
        #pragma unroll
        for (int of = 0; of < OPERANDS; ++of) {
            #pragma unroll
            for (int s = 0; s < SLICES; ++s) {
                // The upper bit of the eight is the slice's lowest.
                *reinterpret_cast<float4*>(columns[OPERANDS - 1 - of] + (first ^ s % 2 * SLICE) + s / 2 * 2 * SLICE) =
                    of_slice[of][s];
            }
        }
    }

    static __device__ __forceinline__ unsigned int half_of_chunks(const unsigned int column) {
        return column / 4u % 2u * 4u;
    }
};

template <int D, bool QUERY_ROWS>
__device__ __forceinline__ void backward_streamed(const Pair<QUERY_ROWS>& pair, float* __restrict__ first_out,
                                                  float* __restrict__ second_out, const float scale,
                                                  const float c2) {
    constexpr int E = QUERY_ROWS ? D / 2 : D, WIDTH = Streamed<D>::WIDTH;
    // Columns in a stage of the outputs: by query both groups read the same, by key each its own.
    constexpr unsigned int DEPTH = (QUERY_ROWS ? GROUPS : 1) * COLUMNS * SLICE / D, PIECES = HALF / DEPTH;
    using Keeping = Kept<D, QUERY_ROWS ? 1 : 2>;
    extern __shared__ __align__(16) unsigned char shared_memory[];
    Streamed<D>& tiles = *reinterpret_cast<Streamed<D>*>(shared_memory);
    const Lane& lane = pair.lane;
    const unsigned int slices = (pair.head_dim + SLICE - 1u) / SLICE;

    Walk here(pair), next(pair);
    Keeping kept;
    const auto fetch_slice = [&](const unsigned int buffer, const Walk& walk, const unsigned int slice) {
        if (!walk.ended()) {
            #pragma unroll
            for (int of = 0; of < GROUPS; ++of) {
                const Operand columns = pair.column_operand(of, walk.member);
                const auto piece = [&](const unsigned int index) {
                    return column_piece(tiles.columns[buffer][of], columns, walk.column, slice, pair.seq, index);
                };
                fetch<COLUMNS * SLICE / 4, PAIR_THREADS>(piece, pair.head_dim, PAD_COLUMNS, pair.in_fours);
            }
            if (!RESIDENT) fetch_pair_rows<WIDTH>(tiles.rows[buffer], pair, slice);
            if (!QUERY_ROWS && slice == 0u) fetch_stats(tiles.stats, pair, walk.member, walk.column);
        }
        copies_end();
    };

    if (RESIDENT) fetch_pair_rows<WIDTH>(tiles.rows[0], pair, 0u);
    fetch_slice(0u, here, 0u);
    const RowStats of_rows(pair);
    float scores[4][8], outputs[4][E / 8];
    clear(outputs);
    unsigned int buffer = 1u;
    // What comes next takes the place of `buffer`, with which all are done.
    const auto enter = [&] {
        copies_wait();
        __syncthreads();
        buffer ^= 1u;
    };
    #pragma unroll 1
    for (; !here.ended(); here = next) {
        next.advance(COLUMNS);
        const bool masked = pair.masked(here.column);
        clear(scores);
        #pragma unroll 1
        for (unsigned int slice = 0u; slice < slices; ++slice) {
            enter();
            kept.take(tiles.columns[buffer], slice);
            if (slice + 1u < slices) {
                fetch_slice(buffer ^ 1u, here, slice + 1u);
            } else {
                kept.template lay<DEPTH>(tiles.columns[buffer ^ 1u], 0u);
            }
            const float* const of_lane = tiles.columns[buffer][pair.group] + lane.c * SLICE;
            const auto column_at = [&](const int j, const unsigned int chunk) {
                return of_lane + (j % 4 * 16 + j / 4 * 8) * SLICE + (chunk ^ lane.c / 2u) * 4u;
            };
            const float* const rows = tiles.rows[RESIDENT ? 0u : buffer][pair.group];
            multiply_scores<WIDTH>(rows, lane, pair.first_row, RESIDENT ? slice * (SLICE / 4u) : 0u, SLICE / 4u,
                                   column_at, scores);
        }
        #pragma unroll
        for (int h = 0; h < 2; ++h) {
            make_weights(tiles.weights, pair, of_rows, tiles.stats, HALF * h + lane.c * 4u, scores, h, c2);
            const float* const weights = tiles.weights[QUERY_ROWS ? 1u : pair.group];
            #pragma unroll 1
            for (unsigned int piece = 0u; piece < PIECES; ++piece) {
                enter();
                const unsigned int following = h * PIECES + piece + 1u;
                if (following < 2u * PIECES) {
                    kept.template lay<DEPTH>(tiles.columns[buffer ^ 1u], following);
                } else {
                    fetch_slice(buffer ^ 1u, next, 0u);
                }
                const float* const columns = QUERY_ROWS ? tiles.columns[buffer][0] + pair.group * E
                                                        : tiles.columns[buffer][pair.group];
                const auto output_at = [&](const unsigned int column) {
                    return columns + column * D + (lane.c ^ Keeping::half_of_chunks(column)) * 4u;
                };
                const unsigned int within = piece * DEPTH, first = here.column + HALF * h + within;
                if (masked) {
                    multiply_outputs<E, D, DEPTH, true>(weights, pair, within, first, output_at, outputs);
                } else {
                    multiply_outputs<E, D, DEPTH, false>(weights, pair, within, first, output_at, outputs);
                }
            }
        }
    }
    store_pair<E>(pair, outputs, first_out, second_out, scale);
}
