// The launch that forms both Gram matrices, tile by tile: the losses of a forward pass, and the weights W that its
// gradients need.
#include <algorithm>

#include "kernel_choice.cuh"
#include "mutual_information_tile.cuh"

namespace itrd {

// Returns L_mi, from the sums of the first `slots` rows of `losses`, by one block. After the first pass of the log form
// it also writes the coefficients of the second, c = 1/(ln 2 Σ) for both terms.
template <class T>
__device__ wide_t<T> finish_mutual_information(const Gram<T>& g, const RowCounts& counts, int slots,
                                               wide_t<T>* shared) {
  using A = wide_t<T>;
  A sums[2] = {};
  for (int b = threadIdx.x; b < slots; b += blockDim.x) {
    sums[0] += g.losses[2 * int64_t(b)];
    sums[1] += g.losses[2 * int64_t(b) + 1];
  }
  reduce_block(sums, Sum(), shared);
  A first = sums[0], second = sums[1];  // linear: L_mi and Σ (G_s G_t)²; log form: Σ G_s² and Σ (G_s G_t)²
  if (g.pass == GramPass::linear) return first;
  if (threadIdx.x == 0) {
    g.coefficients[0] = first == 0 ? 0 : 1 / (kLn2<A> * first);
    g.coefficients[1] = second == 0 ? 0 : 1 / (kLn2<A> * second);
  }
  // L_mi = log2 (Σ G_s² / m_s²) − log2 (Σ (G_s G_t)² / m_st²), where log2 0 counts as 0.
  A potential_s = first * inverse_square<A>(counts.m_s), potential_st = second * inverse_square<A>(counts.m_st);
  return (potential_s == 0 ? 0 : log2(potential_s)) - (potential_st == 0 ? 0 : log2(potential_st));
}

// The first blocks finish the columns of the correlation term, and the others take a tile each. The block that finishes
// last writes the losses.
template <class T, class Math, int tile>
__device__ void gram_block(const Gram<T>& g, const Correlation<T>& c, const Finish<T>& finish, unsigned char* shared) {
  using A = wide_t<T>;
  auto* scratch = reinterpret_cast<A*>(shared);
  int b = int(blockIdx.x) - finish.column_blocks;
  if (b < 0) {
    int j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j < c.d) finish_column(c, j);
  } else {
    int row = g.row0 / tile + b / g.tiles, column = b % g.tiles;
    if (g.triangular) triangular(b, row, column);
    GramTile<T, Math, tile> products(g, std::true_type(), row * tile, column * tile, shared);
    finish_tile(g, products, row, column, g.first_loss + b, scratch);
  }
  if (!finish.ticket) return;
  if (!last_block(finish.ticket, gridDim.x, reinterpret_cast<unsigned*>(shared))) return;
  A correlation = finish.correlation ? finish_correlation(c, scratch) : 0;
  RowCounts counts(g, reinterpret_cast<int*>(shared));
  A mutual_information =
      finish_mutual_information(g, counts, g.first_loss + int(gridDim.x) - finish.column_blocks, scratch);
  if (threadIdx.x == 0) finish.write(correlation, mutual_information);
}

template <class T, class Math, int tile>
__global__ void __launch_bounds__(Shape<tile>::kThreads, resident_blocks<T, tile>())
    gram_tiles(const __grid_constant__ Gram<T> g, const __grid_constant__ Correlation<T> c,
               const __grid_constant__ Finish<T> finish) {
  ITRD_DYNAMIC_SHARED(shared);
  if constexpr (used_here<T, Math, tile>()) gram_block<T, Math, tile>(g, c, finish, shared);
}

template <class T>
void launch_gram_tiles(const TilePlan& plan, const Gram<T>& g, const Correlation<T>& c, const Finish<T>& finish,
                       cudaStream_t stream) {
  with_kernel<T>(plan, [&](auto math, auto size) {
    using Math = decltype(math);
    constexpr int kTile = size.value, kThreads = Shape<kTile>::kThreads;
    int rows = std::min(g.rows, g.n - g.row0);
    int blocks = g.triangular ? g.tiles * (g.tiles + 1) / 2 : (rows + kTile - 1) / kTile * g.tiles;
    Finish<T> f = finish;
    f.column_blocks = f.ticket && f.correlation ? (c.d + kThreads - 1) / kThreads : 0;
    constexpr size_t kSumBytes = 2 * TileSums<wide_t<T>, kTile>::kLength * sizeof(wide_t<T>);
    size_t shared = std::max<size_t>(kStages * GramTile<T, Math, kTile>::kStageBytes + kScratchBytes, kSumBytes);
    launch(gram_tiles<T, Math, kTile>, dim3(blocks + f.column_blocks), kThreads, shared, stream, g, c, f);
  });
}

#define ITRD_INSTANTIATE(T)                                                                                    \
  template void launch_gram_tiles<T>(const TilePlan&, const Gram<T>&, const Correlation<T>&, const Finish<T>&, \
                                     cudaStream_t);
ITRD_INSTANTIATE(float)
ITRD_INSTANTIATE(double)
ITRD_INSTANTIATE(__half)
ITRD_INSTANTIATE(__nv_bfloat16)

}  // namespace itrd
