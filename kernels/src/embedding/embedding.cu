// Embedding. The backward pass first orders the positions by (token, position), in integers; then the rows of each
// token are added in that order by the warps that stand at the token's first place.
//
// A token outside of the vocabulary is a bug of the caller, who has checked them on the host. It must not reach foreign
// memory all the same: its row is NaN, its gradient is dropped.

__device__ __forceinline__ float sum_of(const float a, const float b) { return __fadd_rn(a, b); }
__device__ __forceinline__ float4 sum_of(const float4 a, const float4 b) { return add4(a, b); }

template <typename V> __device__ __forceinline__ V all_of(float x);
template <> __device__ __forceinline__ float all_of<float>(const float x) { return x; }
template <> __device__ __forceinline__ float4 all_of<float4>(const float x) { return splat(x); }

// `width` is elements of V in a row.
template <typename V>
__device__ __forceinline__ void forward(const unsigned int* __restrict__ tokens, const V* __restrict__ table,
                                        V* __restrict__ y, const unsigned int count, const unsigned int vocab,
                                        const unsigned int width) {
    for (unsigned int position = blockIdx.x; position < count; position += gridDim.x) {
        const unsigned int token = tokens[position];
        const V* __restrict__ from = table + static_cast<size_t>(token) * width;
        V* __restrict__ to = y + static_cast<size_t>(position) * width;
        for (unsigned int i = threadIdx.x; i < width; i += blockDim.x) {
            to[i] = token < vocab ? from[i] : all_of<V>(__int_as_float(0x7fffffff));
        }
    }
}

extern "C" __global__ void __launch_bounds__(256)
embedding_forward_vectors(const unsigned int* __restrict__ tokens, const float4* __restrict__ table,
                          float4* __restrict__ y, const unsigned int count, const unsigned int vocab,
                          const unsigned int width) {
    forward(tokens, table, y, count, vocab, width);
}

extern "C" __global__ void __launch_bounds__(256)
embedding_forward_any(const unsigned int* __restrict__ tokens, const float* __restrict__ table,
                      float* __restrict__ y, const unsigned int count, const unsigned int vocab,
                      const unsigned int width) {
    forward(tokens, table, y, count, vocab, width);
}

#define ORDER_TILE 256u

// The place of position i in the stable order by token is the number of smaller tokens plus that of equal ones before
// it. `order[place] = i`; `runs[place]` is how often the token occurs at the place where it first does, else 0.
extern "C" __global__ void __launch_bounds__(256)
embedding_order(const unsigned int* __restrict__ tokens, unsigned int* __restrict__ order,
                unsigned int* __restrict__ runs, const unsigned int count) {
    __shared__ unsigned int tile[ORDER_TILE];
    const unsigned int i = blockIdx.x * ORDER_TILE + threadIdx.x;
    const unsigned int mine = i < count ? tokens[i] : 0u;
    unsigned int smaller = 0u, equal = 0u, before = 0u;
    for (unsigned int begin = 0u; begin < count; begin += ORDER_TILE) {
        __syncthreads();
        if (begin + threadIdx.x < count) tile[threadIdx.x] = tokens[begin + threadIdx.x];
        __syncthreads();
        const unsigned int held = min(ORDER_TILE, count - begin);
        for (unsigned int j = 0u; j < held; ++j) {
            const unsigned int other = tile[j];
            smaller += other < mine ? 1u : 0u;
            equal += other == mine ? 1u : 0u;
            before += other == mine && begin + j < i ? 1u : 0u;
        }
    }
    if (i >= count) return;
    order[smaller + before] = i;
    runs[smaller + before] = before == 0u ? equal : 0u;
}

// Positions of one chunk of a token's gradient.
#define GRADIENT_POSITIONS 256u

// Vectors of a row that a lane adds up: what a warp looks up of its place serves that many.
#define GRADIENT_VECTORS 4u

// A warp takes a strip of the row of one token: that of the place where the token's positions begin.
template <typename V>
__device__ __forceinline__ void backward(const unsigned int* __restrict__ tokens,
                                         const unsigned int* __restrict__ order,
                                         const unsigned int* __restrict__ runs, const V* __restrict__ dy,
                                         V* __restrict__ dtable, const unsigned int count,
                                         const unsigned int vocab, const unsigned int width) {
    const unsigned int strip = 32u * GRADIENT_VECTORS, strips = (width + strip - 1u) / strip;
    const unsigned int warp = blockIdx.x * (blockDim.x / 32u) + threadIdx.x / 32u;
    const unsigned int place = warp / strips, column = warp % strips * strip + threadIdx.x % 32u;
    if (place >= count) return;
    const unsigned int run = runs[place];
    if (run == 0u) return;
    const unsigned int token = tokens[order[place]];
    if (token >= vocab) return;
    V* __restrict__ to = dtable + static_cast<size_t>(token) * width;
    V total[GRADIENT_VECTORS];
    #pragma unroll
    for (unsigned int j = 0u; j < GRADIENT_VECTORS; ++j) {
        total[j] = column + 32u * j < width ? to[column + 32u * j] : all_of<V>(0.0f);
    }
    for (unsigned int begin = 0u; begin < run; begin += GRADIENT_POSITIONS) {
        const unsigned int end = min(run, begin + GRADIENT_POSITIONS);
        V sum[GRADIENT_VECTORS];
        #pragma unroll
        for (unsigned int j = 0u; j < GRADIENT_VECTORS; ++j) sum[j] = all_of<V>(0.0f);
        #pragma unroll 2
        for (unsigned int i = begin; i < end; ++i) {
            const V* __restrict__ from = dy + static_cast<size_t>(order[place + i]) * width;
            #pragma unroll
            for (unsigned int j = 0u; j < GRADIENT_VECTORS; ++j) {
                if (column + 32u * j < width) sum[j] = sum_of(sum[j], from[column + 32u * j]);
            }
        }
        #pragma unroll
        for (unsigned int j = 0u; j < GRADIENT_VECTORS; ++j) total[j] = sum_of(total[j], sum[j]);
    }
    #pragma unroll
    for (unsigned int j = 0u; j < GRADIENT_VECTORS; ++j) {
        if (column + 32u * j < width) to[column + 32u * j] = total[j];
    }
}

extern "C" __global__ void __launch_bounds__(128)
embedding_backward_vectors(const unsigned int* __restrict__ tokens, const unsigned int* __restrict__ order,
                           const unsigned int* __restrict__ runs, const float4* __restrict__ dy,
                           float4* __restrict__ dtable, const unsigned int count, const unsigned int vocab,
                           const unsigned int width) {
    backward(tokens, order, runs, dy, dtable, count, vocab, width);
}

extern "C" __global__ void __launch_bounds__(128)
embedding_backward_any(const unsigned int* __restrict__ tokens, const unsigned int* __restrict__ order,
                       const unsigned int* __restrict__ runs, const float* __restrict__ dy,
                       float* __restrict__ dtable, const unsigned int count, const unsigned int vocab,
                       const unsigned int width) {
    backward(tokens, order, runs, dy, dtable, count, vocab, width);
}
