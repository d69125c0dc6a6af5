// One tile of both Gram matrices: products of own rows with column rows.
#pragma once

#include <type_traits>

#include "gram.cuh"
#include "mma.cuh"

namespace itrd {

// One tile of own · columnsᵀ of student and of teacher, of rows i0 … and j0 …: the dot products of scale · z, not yet
// divided by norms, so that products of half-precision features are exact.
template <class T, class Math, int tile>
struct GramTile {
  using A = wide_t<T>;
  using S = Shape<tile>;
  static constexpr int kSize = Chunk<T>::kSize, kElementsPerRow = kRowBytes / int(sizeof(T));
  static constexpr int kStageBytes = 2 * tile * kRowBytes;

  Accumulators<A, tile> s = {}, t = {};
  RowCounts counts;

  // With `one_factor` the column rows are known to be the own rows.
  template <bool one_factor>
  __device__ GramTile(const Gram<T>& g, std::bool_constant<one_factor>, int i0, int j0, unsigned char* shared) {
    const Factor<T> own = g.own_rows(), columns = one_factor ? own : g.column_rows();
    int steps_s = (own.s.z.width + kElementsPerRow - 1) / kElementsPerRow,
        steps_t = (own.t.z.width + kElementsPerRow - 1) / kElementsPerRow;
    int steps = steps_s + steps_t;

    // First all student columns, then all teacher columns pass through the stages as one stream.
    auto each_chunk = [&](int step, auto&& visit) {
      unsigned char* stage = shared + step % kStages * kStageBytes;
#pragma unroll
      for (int i = threadIdx.x; i < 2 * tile * kChunks; i += S::kThreads) {
        int r = i / kChunks, c = i % kChunks;
        visit(stage + swizzled(r, c), r < tile, r < tile ? i0 + r : j0 + r - tile, c * kSize);
      }
    };
    auto copy = [&](int step) {
      bool student = step < steps_s;
      int width = student ? own.s.z.width : own.t.z.width, k = (student ? step : step - steps_s) * kElementsPerRow;
      struct Source {
        const T* data;
        int64_t stride;
        bool aligned;
        int n;
      };
      auto source = [&](const Factor<T>& of) -> Source {
        return {student ? of.s.z.data : of.t.z.data, student ? of.s.z.stride : of.t.z.stride,
                student ? of.s.z.sixteen : of.t.z.sixteen, of.n};
      };
      Source upper = source(own), lower = source(columns);
      each_chunk(step, [&](unsigned char* to, bool is_own, int row, int offset) {
        const Source& from = one_factor || is_own ? upper : lower;
        copy_chunk(to, from.data + row * from.stride + k + offset, row < from.n ? width - k - offset : 0, from.aligned);
      });
    };

#pragma unroll 1
    for (int step = 0; step < kStages - 1; ++step) {
      if (step < steps) copy(step);
      copy_commit();
    }
    counts = RowCounts(g, reinterpret_cast<int*>(shared + kStages * kStageBytes));
    for (int step = 0; step < steps; ++step) {
      copy_wait<kStages - 2>();
      if (counts.extreme) {
        const A *upper = step < steps_s ? own.s.scale : own.t.scale,
                *lower = step < steps_s ? columns.s.scale : columns.t.scale;
        each_chunk(step, [&](unsigned char* to, bool is_own, int row, int) {
          const A* scale = one_factor || is_own ? upper : lower;
          if (row < (one_factor || is_own ? own.n : columns.n) && scale[row] != 1) scale_chunk<T>(to, scale[row]);
        });
      }
      __syncthreads();
      if (step + kStages - 1 < steps) copy(step + kStages - 1);
      copy_commit();
      if (step == steps_s) keep_student();
      const unsigned char* stage = shared + step % kStages * kStageBytes;
      Math::template multiply_rows<tile, T>(t, stage, stage + tile * kRowBytes);
    }
    copy_wait<0>();
    __syncthreads();
  }

  // Between the two: what was summed up so far is the student's.
  __device__ void keep_student() {
#pragma unroll
    for (int i = 0; i < S::kSquaresM; ++i)
#pragma unroll
      for (int j = 0; j < S::kSquaresN; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          s[i][j][e] = t[i][j][e];
          t[i][j][e] = 0;
        }
  }
};

}  // namespace itrd
