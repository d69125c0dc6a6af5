// The launch of a sweep over pairs that forms both Gram matrices, tile by tile, under a loss that is chosen at run
// time.
#include <algorithm>

#include "kernel_choice.cuh"
#include "pair_tile.cuh"

namespace itrd {

template <class T, class Math, int tile>
__global__ void __launch_bounds__(Shape<tile>::kThreads, resident_blocks<T, tile>())
    pair_tiles(const __grid_constant__ Pairs<T> p) {
  ITRD_DYNAMIC_SHARED(shared);
  if constexpr (used_here<T, Math, tile>()) {
    const Gram<T>& g = p.gram;
    int b = int(blockIdx.x), row = g.row0 / tile + b / g.tiles, column = b % g.tiles;
    if (g.triangular) triangular(b, row, column);
    GramTile<T, Math, tile> products(g, std::false_type(), row * tile, column * tile, shared);
    finish_pairs(p, products, row, column, g.first_loss + b, reinterpret_cast<wide_t<T>*>(shared));
  }
}

template <class T>
void launch_pair_tiles(bool tensor, const Pairs<T>& p, cudaStream_t stream) {
  auto run = [&](auto math) {
    using Math = decltype(math);
    constexpr int kTile = kPairTile<T>;
    const Gram<T>& g = p.gram;
    int rows = std::min(g.rows, g.n - g.row0);
    int blocks = g.triangular ? g.tiles * (g.tiles + 1) / 2 : (rows + kTile - 1) / kTile * g.tiles;
    size_t shared = std::max<size_t>(kStages * GramTile<T, Math, kTile>::kStageBytes + kScratchBytes,
                                     PairTile<wide_t<T>, kTile>::kLength * sizeof(wide_t<T>));
    launch(pair_tiles<T, Math, kTile>, dim3(blocks), Shape<kTile>::kThreads, shared, stream, p);
  };
  if constexpr (sizeof(T) != 8)
    if (tensor) return run(TensorCores());
  run(Ieee());
}

#define ITRD_INSTANTIATE(T) template void launch_pair_tiles<T>(bool, const Pairs<T>&, cudaStream_t);
ITRD_INSTANTIATE(float)
ITRD_INSTANTIATE(double)
ITRD_INSTANTIATE(__half)
ITRD_INSTANTIATE(__nv_bfloat16)

}  // namespace itrd
