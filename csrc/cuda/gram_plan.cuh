// What the launches on Gram matrices plan alike: tiles, and how many rows of W are in memory at a time.
#pragma once

#include <algorithm>

#include "launch.cuh"
#include "streaming.cuh"

namespace itrd {

constexpr int64_t kWorkspaceBytes = 64 << 20;  // beside eight float32 for each feature
constexpr int64_t kPanelEntries = INT32_MAX;   // of W, so that offsets in it fit in 32 bits
constexpr int64_t kSmallParts = 16 << 10;      // bytes for ticket, counts, coefficients and alignment
constexpr int kMaxCountBlocks = 1024;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// How many blocks take the norms of n rows, and count them.
inline int64_t blocks_that_count(int64_t n) { return std::min<int64_t>(ceil_div(n, kStreamWarps), kMaxCountBlocks); }

// Whether the tensor cores form G.
inline bool on_tensor_cores(Dtype type, int capability, bool tf32) {
  bool half = type == Dtype::float16 || type == Dtype::bfloat16;
  return capability >= 80 ? half || (tf32 && type == Dtype::float32) : type == Dtype::float16;
}

// The largest tile with which there is still something to do for every multiprocessor, where the whole work is
// `squares` squares of 32 × 32; or the tile that is forced.
inline TilePlan plan_tiles(Dtype type, int capability, bool tensor, int64_t squares, int forced) {
  int tile = forced ? forced : squares >= 64 * 16 ? 128 : squares >= 64 * 4 ? 64 : 32;
  bool half = type == Dtype::float16 || type == Dtype::bfloat16;
  if (capability < 80) tile = std::min(tile, kLargestOldTile);
  if (type == Dtype::float64) return {std::min(tile, 64), false};
  return {half && !tensor ? 64 : tile, tensor};
}

// How many of the `height` rows of W there are at a time, in whole tiles: all where they fit in `bytes`, else panels of
// about the same size; or as many as are forced.
inline int64_t panel_rows(int64_t height, int64_t ld, int64_t whole, int64_t row_bytes, int64_t bytes, int forced) {
  int64_t rows = std::min(bytes / row_bytes, kPanelEntries / ld) / whole * whole;
  if (forced) rows = forced;
  if (rows >= height) return height;
  int64_t panels = ceil_div(height, std::max(rows, whole));
  return ceil_div(height / whole, panels) * whole;
}

// The rows of z, whose rnorm and scale are two rows of `norms`, from row `first` on.
template <class T>
Rows<T> rows_of(const Matrix& z, void* norms, int64_t ld, int first) {
  auto* rnorm = static_cast<wide_t<T>*>(norms) + first * ld;
  return {view<T>(z), rnorm, rnorm + ld};
}

}  // namespace itrd
