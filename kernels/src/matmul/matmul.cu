// SGEMM in mode `portable`: one FMA chain per output, k ascending.
//
// A block computes a BM x BN tile of c with BM * BN / 64 threads, eight by eight outputs per thread, held in
// registers through the whole chain. Tiles of BK steps of k wait in two buffers of shared memory: while one is
// multiplied, the next is already on its way from global memory into registers. Nothing splits k, so that tile
// sizes, buffers and the shape of the grid are free: the bits do not depend on them.
//
// Operands lie in shared memory k-major ("Tile"), so that a thread reads its eight rows or columns as two
// float4 per k. An operand that is contiguous in k is transposed on its way in; its float4 groups are then
// permuted by XOR with k / 4, so that the scattered stores of a warp meet 32 different banks.

#define BK 8
// Neighbouring lanes that store a transposed piece hold WARP_ROWS rows at BK / 4 places along k.
#define WARP_ROWS (128 / BK)

enum class Layout { NN, NT, TN };

// Steps of k that are unrolled: all of a tile's, but where the compiler then keeps more operands at hand than there are
// registers.
constexpr __device__ int unrolled(const Layout layout, const int tile) {
#if __CUDA_ARCH__ >= 1000 && __CUDA_ARCH__ < 1200
    return layout == Layout::TN && tile == 128 ? 4 : BK;
#else
    return BK;
#endif
}

// A product that leaves every accumulator as it is: fma(+0, -0, acc) = acc, also for acc = -0, where adding
// +0 would not do. So k is padded with +0 in a and -0 in b, and the main loop needs no tail.
__device__ constexpr float PAD_A = 0.0f;
__device__ constexpr float PAD_B = -0.0f;

__device__ __forceinline__ unsigned int thread_anew() {
    unsigned int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

// Loads one operand's tile: `EXTENT` rows or columns by BK steps of k, by THREADS threads.
// PAIRED: of two operands of one shape, whose rows take turns in groups of 32.
template <bool K_CONTIGUOUS, bool VECTOR, bool PAIRED, int EXTENT, int THREADS>
struct Loader {
    static_assert(K_CONTIGUOUS || !PAIRED, "only rows that run along k come in pairs");
    static constexpr int PIECES = EXTENT * BK / 4 / THREADS;
    static constexpr int ALONG = K_CONTIGUOUS ? BK / 4 : EXTENT / 4;
    static constexpr int STRIDE = THREADS / ALONG;
    static_assert(PIECES * THREADS * 4 == EXTENT * BK && STRIDE * ALONG == THREADS, "the tile divides evenly");

    const float* next[PIECES];
    size_t advance;
    unsigned int inner_left;  // elements from this thread's first one to the end of a row of memory; not for VECTOR
    float4 held[PIECES];

    // A thread's first piece: row of memory within the tile, element within that row.
    static __device__ __forceinline__ unsigned int outer_of(const unsigned int thread) { return thread / ALONG; }
    static __device__ __forceinline__ unsigned int inner_of(const unsigned int thread) { return thread % ALONG * 4u; }

    __device__ __forceinline__ Loader(const float* base, const float* other, const unsigned int pitch,
                                      const unsigned int begin, const unsigned int extent)
        : advance(K_CONTIGUOUS ? BK : static_cast<size_t>(BK) * pitch), inner_left(0u) {
        const unsigned int outer = outer_of(threadIdx.x), inner = inner_of(threadIdx.x);
        // Rows and columns beyond the operand are read as its last ones: what they lead to is not stored, and no
        // register is spent on knowing where the end is.
        #pragma unroll
        for (int piece = 0; piece < PIECES; ++piece) {
            const unsigned int row = outer + piece * STRIDE;
            if (PAIRED) {
                const unsigned int of_pair = begin + row / 64u * 32u + row % 32u;
                next[piece] = (row % 64u < 32u ? base : other) +
                              static_cast<size_t>(min(of_pair, extent - 1u)) * pitch + inner;
            } else if (K_CONTIGUOUS) {
                next[piece] = base + static_cast<size_t>(min(begin + row, extent - 1u)) * pitch + inner;
            } else {
                const unsigned int column = VECTOR ? min(begin + inner, extent - 4u) : begin + inner;
                next[piece] = base + static_cast<size_t>(row) * pitch + column;
            }
        }
        if (!VECTOR && !K_CONTIGUOUS) inner_left = extent - min(begin + inner, extent);
    }

    // Fetches the next tile into registers; `k_left` steps of k are left in the chain, with WHOLE at least a tile's.
    template <bool WHOLE>
    __device__ __forceinline__ void fetch(const unsigned int k_left, const float pad) {
        // Asked for anew: the main loop, which does not need to know it, has no register to keep it in.
        const unsigned int thread = WHOLE ? 0u : thread_anew();
        const unsigned int outer = outer_of(thread), inner = inner_of(thread);
        #pragma unroll
        for (int piece = 0; piece < PIECES; ++piece) {
            const float* from = next[piece];
            float4 value = splat(pad);
            if (WHOLE || (K_CONTIGUOUS ? inner < k_left : outer + piece * STRIDE < k_left)) {
                if (VECTOR) {
                    value = *reinterpret_cast<const float4*>(from);
                } else {
                    const unsigned int left = !K_CONTIGUOUS ? inner_left : WHOLE ? 4u : k_left - inner;
                    if (0u < left) value.x = from[0];
                    if (1u < left) value.y = from[1];
                    if (2u < left) value.z = from[2];
                    if (3u < left) value.w = from[3];
                }
            }
            held[piece] = value;
            next[piece] += advance;
        }
    }

    // Where the thread's first piece lies in a tile.
    __device__ __forceinline__ unsigned int place() const {
        const unsigned int outer = outer_of(threadIdx.x), inner = inner_of(threadIdx.x);
        return K_CONTIGUOUS ? inner * EXTENT + (outer ^ (inner / 4u * WARP_ROWS)) : outer * EXTENT + inner;
    }

    // Puts the fetched tile into shared memory; `to` is the tile's beginning and `place()` together.
    __device__ __forceinline__ void put(float* __restrict__ to) const {
        // Further pieces lie at constant distances: the permutation leaves their upper bits alone.
        static_assert(!K_CONTIGUOUS || PIECES == 1 || STRIDE % (2 * WARP_ROWS) == 0, "pieces swap places alike");
        #pragma unroll
        for (int piece = 0; piece < PIECES; ++piece) {
            if (K_CONTIGUOUS) {
                float* begin = to + piece * STRIDE;
                begin[0] = held[piece].x;
                begin[EXTENT] = held[piece].y;
                begin[2 * EXTENT] = held[piece].z;
                begin[3 * EXTENT] = held[piece].w;
            } else {
                *reinterpret_cast<float4*>(to + piece * STRIDE * EXTENT) = held[piece];
            }
        }
    }
};

// Shared memory is counted in bytes, so that the main loop's places need no scaling.
__device__ __forceinline__ float* floats(char* bytes) { return reinterpret_cast<float*>(bytes); }

__device__ __forceinline__ float4 four(const char* at) { return *reinterpret_cast<const float4*>(at); }

__device__ __forceinline__ void chain4(float (&acc)[8], const int j, const float a, const float4 b) {
    acc[j] = __fmaf_rn(a, b.x, acc[j]);
    acc[j + 1] = __fmaf_rn(a, b.y, acc[j + 1]);
    acc[j + 2] = __fmaf_rn(a, b.z, acc[j + 2]);
    acc[j + 3] = __fmaf_rn(a, b.w, acc[j + 3]);
}

// One chain over k per output, from a and b: NN a [m, k], b [k, n]; NT a [m, k], b [n, k]; TN a [k, m], b [k, n].
// PAIRED: b and `other` are both [n, k]. A tile's columns are then 32 of b's products, the 32 of `other` for the same
// outputs, and so on, so that a thread holds both products of an output.
//
// `end(row, column, low, high)` says what becomes of a thread's sums: `low` are those of four columns;
// `high` those 32 columns further on, or of the same outputs if PAIRED.
template <Layout LAYOUT, int BM, int BN, bool VECTOR, bool PAIRED, typename End>
__device__ __forceinline__ void sgemm(const float* __restrict__ a, const float* __restrict__ b,
                                      const float* __restrict__ other, const unsigned int m, const unsigned int n,
                                      const unsigned int k, End end) {
    constexpr int THREADS = BM * BN / 64;
    constexpr int STEPS = unrolled(LAYOUT, BM);
    constexpr bool A_K = LAYOUT != Layout::TN;
    constexpr bool B_K = LAYOUT == Layout::NT;
    // Two buffers, each a tile of a and one of b. All places below lie in the first; an XOR leads to the other.
    constexpr unsigned int FLOAT = sizeof(float), OF_B = FLOAT * BK * BM, BUFFER = FLOAT * BK * (BM + BN);
    static_assert((BUFFER & (BUFFER - 1u)) == 0u, "an XOR leads to the other buffer");
    __shared__ __align__(16) char tiles[2u * BUFFER];

    // Tiles are walked in bands of eight rows of tiles, so that blocks in flight share operands in L2.
    constexpr unsigned int BAND = 8u;
    const unsigned int tiles_m = (m + BM - 1u) / BM;
    constexpr unsigned int OUTPUTS = PAIRED ? BN / 2 : BN;
    const unsigned int tiles_n = (n + OUTPUTS - 1u) / OUTPUTS;
    const unsigned int band = blockIdx.x / (BAND * tiles_n);
    const unsigned int band_rows = min(BAND, tiles_m - band * BAND);
    const unsigned int in_band = blockIdx.x - band * BAND * tiles_n;
    const unsigned int begin_m = (band * BAND + in_band % band_rows) * BM;
    const unsigned int begin_n = in_band / band_rows * OUTPUTS;

    // A warp computes 32 x 64 outputs: four lanes down, eight across, each with two groups of four either way.
    // Eight neighbouring lanes read 128 neighbouring bytes of b and one float4 of a.
    constexpr unsigned int WARPS_N = BN / 64;
    const unsigned int warp = threadIdx.x / 32u, lane = threadIdx.x % 32u;
    const unsigned int at_m = warp / WARPS_N * 32u + lane / 8u * 4u;
    const unsigned int at_n = warp % WARPS_N * 64u + lane % 8u * 4u;

    unsigned int k_left = k;
    Loader<A_K, VECTOR, false, BM, THREADS> load_a(a, nullptr, A_K ? k : m, begin_m, m);
    Loader<B_K, VECTOR, PAIRED, BN, THREADS> load_b(b, other, B_K ? k : n, begin_n, n);
    float acc[8][8] = {};

    // Half way through a tile, operands that run along k have swapped their groups of WARP_ROWS. A thread's rows come in
    // one of each, its columns in two of one.
    static_assert(BK == 8 && WARP_ROWS == 16, "a thread's rows lie 16 apart, and a tile has two halves");
    unsigned int from_a = FLOAT * at_m, from_b = OF_B + FLOAT * at_n;
    unsigned int from_swapped = OF_B + FLOAT * (B_K ? at_n ^ WARP_ROWS : at_n);
    unsigned int to_a = FLOAT * load_a.place(), to_b = OF_B + FLOAT * load_b.place();
    constexpr bool ALIKE = A_K == B_K && BM == BN;

    const auto put = [&] {
        load_a.put(floats(tiles + to_a));
        load_b.put(floats(tiles + (ALIKE ? to_a + OF_B : to_b)));
    };
    const auto other_buffer = [&] {
        from_a ^= BUFFER;
        from_b ^= BUFFER;
        from_swapped ^= BUFFER;
        to_a ^= BUFFER;
        to_b ^= BUFFER;
    };
    const auto multiply = [&](const int step) {
        const unsigned int first = A_K ? static_cast<unsigned int>(step / 4) * WARP_ROWS : 0u;
        const float4 a0 = four(tiles + from_a + FLOAT * (step * BM + first));
        const float4 a1 = four(tiles + from_a + FLOAT * (step * BM + WARP_ROWS - first));
        const char* columns = tiles + (step < 4 ? from_b : from_swapped) + FLOAT * step * BN;
        const float4 b0 = four(columns);
        const float4 b1 = four(columns + FLOAT * 32u);
        const float rows[8] = {a0.x, a0.y, a0.z, a0.w, a1.x, a1.y, a1.z, a1.w};
        #pragma unroll
        for (int i = 0; i < 8; ++i) {
            chain4(acc[i], 0, rows[i], b0);
            chain4(acc[i], 4, rows[i], b1);
        }
    };

    load_a.template fetch<false>(k_left, PAD_A);
    load_b.template fetch<false>(k_left, PAD_B);
    put();
    __syncthreads();
    // While another whole tile follows, none of its pieces needs a look at where the chain ends.
    while (k_left >= 2u * BK) {
        k_left -= BK;
        load_a.template fetch<true>(k_left, PAD_A);
        load_b.template fetch<true>(k_left, PAD_B);
        #pragma unroll STEPS
        for (int step = 0; step < BK; ++step) multiply(step);
        // The other buffer was last read before the barrier that ended the previous round.
        other_buffer();
        put();
        __syncthreads();
    }
    #pragma unroll 1
    while (k_left > 0u) {
        k_left -= min(k_left, static_cast<unsigned int>(BK));
        if (k_left > 0u) {
            load_a.template fetch<false>(k_left, PAD_A);
            load_b.template fetch<false>(k_left, PAD_B);
        }
        #pragma unroll 2
        for (int step = 0; step < BK; ++step) multiply(step);
        other_buffer();
        if (k_left > 0u) put();
        __syncthreads();
    }

    #pragma unroll
    for (int i = 0; i < 8; ++i) {
        const unsigned int row = begin_m + at_m + i / 4 * 16 + i % 4;
        if (row >= m) continue;
        const unsigned int column = begin_n + (PAIRED ? at_n / 64u * 32u + at_n % 64u : at_n);
        end(row, column, make_float4(acc[i][0], acc[i][1], acc[i][2], acc[i][3]),
            make_float4(acc[i][4], acc[i][5], acc[i][6], acc[i][7]));
    }
}

__device__ __forceinline__ unsigned int columns_left(const unsigned int column, const unsigned int n) {
    return column < n ? n - column : 0u;
}

// c = base + the product, or the product alone if there is no base, which may be c itself: who writes an element is the
// only one to read it. The chunks of TN are launches in order, so that the main loop keeps its registers to itself.
template <Layout LAYOUT, int BM, int BN, bool VECTOR>
__device__ __forceinline__ void product(const float* __restrict__ a, const float* __restrict__ b, const float* base,
                                        float* c, const unsigned int m, const unsigned int n, const unsigned int k) {
    const auto put = [&](const unsigned int row, const unsigned int column, float4 value) {
        const unsigned int left = columns_left(column, n);
        const size_t at = static_cast<size_t>(row) * n + column;
        if (base != nullptr) value = add4(load4<VECTOR>(base + at, 0u, left, 0.0f), value);
        store4<VECTOR>(c + at, 0u, left, value);
    };
    sgemm<LAYOUT, BM, BN, VECTOR, false>(
        a, b, nullptr, m, n, k,
        [&](const unsigned int row, const unsigned int column, const float4 low, const float4 high) {
            put(row, column, low);
            put(row, column + 32u, high);
        });
}

// h = swiglu(a * gate^T, a * up^T), and both products to g and u if there are such.
template <int BM, int BN, bool VECTOR>
__device__ __forceinline__ void gated_product(const float* __restrict__ a, const float* __restrict__ gate,
                                              const float* __restrict__ up, float* __restrict__ g,
                                              float* __restrict__ u, float* __restrict__ h, const unsigned int m,
                                              const unsigned int n, const unsigned int k) {
    sgemm<Layout::NT, BM, BN, VECTOR, true>(
        a, gate, up, m, n, k,
        [&](const unsigned int row, const unsigned int column, const float4 low, const float4 high) {
            const unsigned int left = columns_left(column, n);
            const size_t at = static_cast<size_t>(row) * n + column;
            if (g != nullptr) {
                store4<VECTOR>(g + at, 0u, left, low);
                store4<VECTOR>(u + at, 0u, left, high);
            }
            store4<VECTOR>(h + at, 0u, left,
                           make_float4(gated(low.x, high.x), gated(low.y, high.y), gated(low.z, high.z),
                                       gated(low.w, high.w)));
        });
}

// NAME_128: for products that fill a device with 128 x 128 tiles. NAME_64: for smaller ones. Both need m, n, k
// that are multiples of four and arrays that begin on 16 bytes. NAME_any: for the rest. The last number is how many
// blocks must fit a multiprocessor, which bounds the registers of a thread.
#define SGEMM(NAME, LAYOUT, BM, BN, VECTOR, BLOCKS)                                                              \
    extern "C" __global__ void __launch_bounds__(BM * BN / 64, BLOCKS)                                           \
    NAME(const float* __restrict__ a, const float* __restrict__ b, const float* base, float* c,                  \
         const unsigned int m, const unsigned int n, const unsigned int k) {                                     \
        product<LAYOUT, BM, BN, VECTOR>(a, b, base, c, m, n, k);                                                 \
    }

SGEMM(matmul_nn_128, Layout::NN, 128, 128, true, 2)
SGEMM(matmul_nn_64, Layout::NN, 64, 64, true, 6)
SGEMM(matmul_nn_any, Layout::NN, 64, 64, false, 6)
SGEMM(matmul_nt_128, Layout::NT, 128, 128, true, 2)
SGEMM(matmul_nt_64, Layout::NT, 64, 64, true, 6)
SGEMM(matmul_nt_any, Layout::NT, 64, 64, false, 6)
SGEMM(matmul_tn_128, Layout::TN, 128, 128, true, 2)
SGEMM(matmul_tn_64, Layout::TN, 64, 64, true, 6)
SGEMM(matmul_tn_any, Layout::TN, 64, 64, false, 6)

// Half as many outputs to a tile: each takes two products.
#define GATED(NAME, BM, BN, VECTOR, BLOCKS)                                                                      \
    extern "C" __global__ void __launch_bounds__(BM * BN / 64, BLOCKS)                                           \
    NAME(const float* __restrict__ a, const float* __restrict__ gate, const float* __restrict__ up,              \
         float* __restrict__ g, float* __restrict__ u, float* __restrict__ h, const unsigned int m,              \
         const unsigned int n, const unsigned int k) {                                                           \
        gated_product<BM, BN, VECTOR>(a, gate, up, g, u, h, m, n, k);                                            \
    }

GATED(matmul_gated_128, 128, 128, true, 2)
GATED(matmul_gated_64, 64, 64, true, 6)
GATED(matmul_gated_any, 64, 64, false, 6)
