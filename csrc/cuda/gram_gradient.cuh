// ∂L/∂z_i = (4/‖z_i‖) ( Σ_j u_ij z_j − ẑ_i Σ_j W_ij G_ij ),  u_ij = W_ij/‖z_j‖, for a tile of rows i and columns of
// z.
#pragma once

#include "gram.cuh"
#include "mma.cuh"

namespace itrd {

// What a stage of shared memory holds: u (tile rows i × kDepth rows j), then z (kDepth rows j × tile columns).
template <class T, int tile>
struct GradientStage {
  using A = wide_t<T>;
  static constexpr int kDepth = kRowBytes / int(sizeof(A));  // rows j in a stage
  // Elements from one row of z to the next; the padding puts those that a warp reads at once into different banks.
  static constexpr int kStride = tile + 32 / int(sizeof(T));
  static constexpr int kWeightBytes = tile * kRowBytes, kBytes = kWeightBytes + kDepth * kStride * int(sizeof(T));
};

// Writes the gradient of the tile's own rows g.row0 + tile · tile_row … and columns tile · tile_column …; the rows j
// are the column rows.
template <class T, class Math, int tile>
__device__ void gram_gradient(const Gram<T>& g, const Side<T>& side, int tile_row, int tile_column,
                              unsigned char* shared) {
  using A = wide_t<T>;
  using S = Shape<tile>;
  using Stage = GradientStage<T, tile>;
  constexpr int kWeightsPerChunk = Chunk<A>::kSize, kSize = Chunk<T>::kSize, kChunksPerRow = tile / kSize;
  const View<T>&z = side.own.z, &columns = side.columns.z;
  int i0 = tile_row * tile, c0 = tile_column * tile, steps = (g.columns + Stage::kDepth - 1) / Stage::kDepth;

  auto each_chunk = [&](int step, auto&& visit) {
    unsigned char* stage = shared + step % kStages * Stage::kBytes + Stage::kWeightBytes;
#pragma unroll
    for (int i = threadIdx.x; i < Stage::kDepth * kChunksPerRow; i += S::kThreads) {
      int r = i / kChunksPerRow, c = i % kChunksPerRow * kSize;
      visit(stage + (r * Stage::kStride + c) * int(sizeof(T)), step * Stage::kDepth + r, c0 + c);
    }
  };
  auto copy = [&](int step) {
    unsigned char* stage = shared + step % kStages * Stage::kBytes;
#pragma unroll
    for (int i = threadIdx.x; i < tile * kChunks; i += S::kThreads) {
      int r = i / kChunks, c = i % kChunks, k = step * Stage::kDepth + c * kWeightsPerChunk;
      copy_async(stage + swizzled(r, c), side.weights + ((i0 + r) * g.ld + k), 16);
    }
    each_chunk(step, [&](unsigned char* to, int j, int column) {
      copy_chunk(to, columns.row(j) + column, j < g.columns ? columns.width - column : 0, columns.sixteen);
    });
  };

#pragma unroll 1
  for (int step = 0; step < kStages - 1; ++step) {
    if (step < steps) copy(step);
    copy_commit();
  }
  bool extreme = RowCounts(g, reinterpret_cast<int*>(shared + kStages * Stage::kBytes)).extreme;
  // One chain of n additions in float32 would lose digits to its length, so that 256 rows make a chain of their own.
  constexpr bool kInChains = !Math::kTensor && sizeof(A) == 4;
  constexpr int kChainSteps = 256 / Stage::kDepth;
  Accumulators<A, tile> acc = {}, finished = {};
  auto finish_chain = [&] {
#pragma unroll
    for (int i = 0; i < S::kSquaresM; ++i)
#pragma unroll
      for (int j = 0; j < S::kSquaresN; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          finished[i][j][e] += acc[i][j][e];
          acc[i][j][e] = 0;
        }
  };
  for (int step = 0; step < steps; ++step) {
    copy_wait<kStages - 2>();
    if (extreme)
      each_chunk(step, [&](unsigned char* to, int j, int) {
        if (j < g.columns && side.columns.scale[j] != 1) scale_chunk<T>(to, side.columns.scale[j]);
      });
    __syncthreads();
    if (step + kStages - 1 < steps) copy(step + kStages - 1);
    copy_commit();
    const unsigned char* stage = shared + step % kStages * Stage::kBytes;
    Math::template multiply<tile>(acc, stage, reinterpret_cast<const T*>(stage + Stage::kWeightBytes), Stage::kStride);
    if (kInChains && (step + 1) % kChainSteps == 0) finish_chain();
  }
  if (kInChains) finish_chain();
  const Accumulators<A, tile>& sum = kInChains ? finished : acc;
  copy_wait<0>();
  __syncthreads();

  // Σ_j W_ij G_ij of the tile's rows, from all tiles of columns.
  A* projection = reinterpret_cast<A*>(shared);
  for (int r = threadIdx.x; r < tile; r += S::kThreads) {
    A total = 0;
    for (int b = 0; b < g.tiles; ++b) total += side.partial_projection[b * g.rows + i0 + r];
    projection[r] = total;
  }
  __syncthreads();
  bool pairs = z.width % 2 == 0;
#pragma unroll
  for (int i = 0; i < S::kSquaresM; ++i) {
    int row = g.row0 + i0 + S::row(i);
    if (row >= g.n) continue;
    // gradient = factor (Σ_j u_ij z_j − projection_factor z_i), and 0 for a row left out, whatever it holds
    A scale = side.own.scale[row], rnorm = side.own.rnorm[row], factor = 4 * rnorm * scale;
    A projection_factor = projection[S::row(i)] * rnorm * scale;
#pragma unroll
    for (int j = 0; j < S::kSquaresN; ++j) {
      int column = c0 + S::column(j);
      if (column >= z.width) continue;
      const T* from = z.row(row) + column;
      A* to = side.gradient + int64_t(row) * z.width + column;
      bool both = column + 1 < z.width;
      Pair<T> x = {};
      if (z.four) {
        x = *reinterpret_cast<const Pair<T>*>(from);
      } else {
        x.first = from[0];
        if (both) x.second = from[1];
      }
      Pair<A> gradient = {factor * (sum[i][j][0] - projection_factor * widen(x.first)),
                          factor * (sum[i][j][1] - projection_factor * widen(x.second))};
      if (scale == 0) gradient = {};
      if (pairs) {
        *reinterpret_cast<Pair<A>*>(to) = gradient;
      } else {
        to[0] = gradient.first;
        if (both) to[1] = gradient.second;
      }
    }
  }
}

}  // namespace itrd
