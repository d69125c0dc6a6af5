// Which of the kernels on Gram matrices exist, for a type of features, a kind of products and a size of tiles.
#pragma once

#include <type_traits>

#include "launch.cuh"
#include "mma.cuh"

namespace itrd {

// Whether launches take this kernel on the architecture that is being compiled for. The other kernels need no code
// there: from sm_80 on the tensor cores take every half-precision tile, before it they take float16 alone.
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

template <int tile>
using Tile = std::integral_constant<int, tile>;

// Calls run(math, tile) with values of the types that stand for them, for the kernels that exist. The sums of a tile of
// 128 rows of float64 do not fit in the registers; half precision meets the floating-point units on old architectures
// only, where one size is enough.
template <class T, class Math, class Run>
void with_tile(int tile, Run run) {
  constexpr bool kFallback = sizeof(T) == 2 && !Math::kTensor;
  if constexpr (!kFallback && sizeof(T) != 8)
    if (tile == 128) return run(Math(), Tile<128>());
  if constexpr (!kFallback)
    if (tile == 32) return run(Math(), Tile<32>());
  run(Math(), Tile<64>());
}

// The same, for what `plan` asks.
template <class T, class Run>
void with_kernel(const TilePlan& plan, Run run) {
  if constexpr (sizeof(T) != 8)
    if (plan.tensor) return with_tile<T, TensorCores>(plan.tile, run);
  with_tile<T, Ieee>(plan.tile, run);
}

}  // namespace itrd
