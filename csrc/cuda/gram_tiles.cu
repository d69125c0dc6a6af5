// Kernels and launches of the Gram term.
#include <algorithm>
#include <type_traits>

#include "gram_gradient.cuh"
#include "gram_tile.cuh"
#include "launch.cuh"

namespace itrd {

// Tile (row, column) number b of those on and below the diagonal: b = row (row + 1)/2 + column.
__device__ inline void triangular(int b, int& row, int& column) {
  row = int((sqrt(8.0f * b + 1) - 1) / 2);
  while (row * int64_t(row + 1) / 2 > b) --row;
  while ((row + 1) * int64_t(row + 2) / 2 <= b) ++row;
  column = b - int(row * int64_t(row + 1) / 2);
}

// L_mi from the sums over all tiles, by one block; for the log form also c = 1/(ln 2 Σ) of both terms.
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
  A first = sums[0], second = sums[1];
  if (g.pass == GramPass::linear) return first;
  const A ln2 = A(0.69314718055994530942);
  if (threadIdx.x == 0) {
    g.coefficients[0] = first == 0 ? 0 : 1 / (ln2 * first);
    g.coefficients[1] = second == 0 ? 0 : 1 / (ln2 * second);
  }
  A potential_s = first * over_square<A>(counts.m_s), potential_st = second * over_square<A>(counts.m_st);
  return (potential_s == 0 ? 0 : log2(potential_s)) - (potential_st == 0 ? 0 : log2(potential_st));
}

constexpr int kLargestOldTile = 64;  // before sm_80

// Which kernels the launcher takes on the architecture that is being compiled for; the others need no code there.
template <class T, class Math, int tile>
__host__ __device__ constexpr bool used_here() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  return Math::kTensor || sizeof(T) != 2;
#elif defined(__CUDA_ARCH__)
  return tile <= kLargestOldTile && (!Math::kTensor || std::is_same_v<T, __half>);
#else
  return true;
#endif
}

// The first blocks finish the columns of the correlation term, the others take a tile each; the last one to finish
// writes the losses.
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
    GramTile<T, Math, tile> products(g, row * tile, column * tile, shared);
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

template <class T, class Math, int tile>
__global__ void __launch_bounds__(Shape<tile>::kThreads, resident_blocks<T, tile>())
    gram_gradients(const __grid_constant__ Gram<T> g) {
  ITRD_DYNAMIC_SHARED(shared);
  const Rows<T>& side = blockIdx.z == 0 && g.s.weights ? g.s : g.t;
  // The wider of the two gave the grid its width.
  if (int(blockIdx.x) * tile >= side.z.width) return;
  if constexpr (used_here<T, Math, tile>()) gram_gradient<T, Math, tile>(g, side, blockIdx.y, blockIdx.x, shared);
}

template <int tile>
using Tile = std::integral_constant<int, tile>;

// Calls run(math, tile) for the kernels that exist: float64 has no sums to fill a tile of 128 with, and half precision
// meets the floating-point units on old architectures only.
template <class T, class Math, class Run>
void with_tile(int tile, Run run) {
  constexpr bool kFallback = sizeof(T) == 2 && !Math::kTensor;
  if constexpr (!kFallback && sizeof(T) != 8)
    if (tile == 128) return run(Math(), Tile<128>());
  if constexpr (!kFallback)
    if (tile == 32) return run(Math(), Tile<32>());
  run(Math(), Tile<64>());
}

template <class T, class Run>
void with_kernel(const TilePlan& plan, Run run) {
  if constexpr (sizeof(T) != 8)
    if (plan.tensor) return with_tile<T, TensorCores>(plan.tile, run);
  with_tile<T, Ieee>(plan.tile, run);
}

TilePlan plan_tiles(Dtype type, int capability, bool tensor, int64_t squares, int forced) {
  // The largest tile that still gives every multiprocessor something to do.
  int tile = forced ? forced : squares >= 64 * 16 ? 128 : squares >= 64 * 4 ? 64 : 32;
  bool half = type == Dtype::float16 || type == Dtype::bfloat16;
  if (capability < 80) tile = std::min(tile, kLargestOldTile);
  if (type == Dtype::float64) return {std::min(tile, 64), false};
  return {half && !tensor ? 64 : tile, tensor};
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

template <class T>
void launch_gram_gradients(const TilePlan& plan, const Gram<T>& g, cudaStream_t stream) {
  with_kernel<T>(plan, [&](auto math, auto size) {
    using Math = decltype(math);
    constexpr int kTile = size.value;
    int width = std::max(g.s.weights ? g.s.z.width : 0, g.t.weights ? g.t.z.width : 0);
    int rows = std::min(g.rows, g.n - g.row0);
    dim3 grid((width + kTile - 1) / kTile, (rows + kTile - 1) / kTile, (g.s.weights ? 1 : 0) + (g.t.weights ? 1 : 0));
    size_t shared = kStages * GradientStage<T, kTile>::kBytes + kScratchBytes;
    launch(gram_gradients<T, Math, kTile>, grid, Shape<kTile>::kThreads, shared, stream, g);
  });
}

#define ITRD_INSTANTIATE(T)                                                                                    \
  template void launch_gram_tiles<T>(const TilePlan&, const Gram<T>&, const Correlation<T>&, const Finish<T>&, \
                                     cudaStream_t);                                                            \
  template void launch_gram_gradients<T>(const TilePlan&, const Gram<T>&, cudaStream_t);
ITRD_INSTANTIATE(float)
ITRD_INSTANTIATE(double)
ITRD_INSTANTIATE(__half)
ITRD_INSTANTIATE(__nv_bfloat16)

}  // namespace itrd
