// The launch that makes the gradient of a loss on Gram matrices from W, one block for each of its tiles.
#include <algorithm>

#include "gram_gradient.cuh"
#include "kernel_choice.cuh"

namespace itrd {

template <class T, class Math, int tile>
__global__ void __launch_bounds__(Shape<tile>::kThreads, resident_blocks<T, tile>())
    gram_gradients(const __grid_constant__ Gram<T> g) {
  ITRD_DYNAMIC_SHARED(shared);
  const Side<T>& side = blockIdx.z == 0 && g.s.weights ? g.s : g.t;
  // The wider of the two gave the grid its width.
  if (int(blockIdx.x) * tile >= side.own.z.width) return;
  if constexpr (used_here<T, Math, tile>()) gram_gradient<T, Math, tile>(g, side, blockIdx.y, blockIdx.x, shared);
}

template <class T>
void launch_gram_gradients(const TilePlan& plan, const Gram<T>& g, cudaStream_t stream) {
  with_kernel<T>(plan, [&](auto math, auto size) {
    using Math = decltype(math);
    constexpr int kTile = size.value;
    int width = std::max(g.s.weights ? g.s.own.z.width : 0, g.t.weights ? g.t.own.z.width : 0);
    int rows = std::min(g.rows, g.n - g.row0);
    dim3 grid((width + kTile - 1) / kTile, (rows + kTile - 1) / kTile, (g.s.weights ? 1 : 0) + (g.t.weights ? 1 : 0));
    size_t shared = kStages * GradientStage<T, kTile>::kBytes + kScratchBytes;
    launch(gram_gradients<T, Math, kTile>, grid, Shape<kTile>::kThreads, shared, stream, g);
  });
}

#define ITRD_INSTANTIATE(T) template void launch_gram_gradients<T>(const TilePlan&, const Gram<T>&, cudaStream_t);
ITRD_INSTANTIATE(float)
ITRD_INSTANTIATE(double)
ITRD_INSTANTIATE(__half)
ITRD_INSTANTIATE(__nv_bfloat16)

}  // namespace itrd
