// 1/‖z_i‖ of the rows of student and teacher, which turn dot products of rows into cosines; how many rows are not zero.
#pragma once

#include "gram.cuh"
#include "streaming.cuh"

namespace itrd {

// Writes rnorm and scale of every row of student and teacher, one warp per row, and the block's counts of rows.
template <class T>
__device__ void row_norms(const Gram<T>& g, int block, int* shared) {
  using A = wide_t<T>;
  int lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  int counts[kRowCounts] = {};

  // {1/‖scale · z_i‖, scale} of row i of z
  auto norm = [&](const View<T>& z, int i, bool& extreme) {
    const T* row = z.row(i);
    // Returns Σ_j (scale z_ij)² and sets `largest` to max_j |z_ij|.
    auto reduce = [&](A scale, A& largest) {
      A square = 0;
      largest = 0;
      for (int strip = 0; strip * kStripColumns < z.width; ++strip) {
        A x[4];
        Columns<A> columns(strip, z.width, z.four);
        columns.load(row, x);
#pragma unroll
        for (int q = 0; q < 4; ++q) {
          square += x[q] * scale * (x[q] * scale);
          largest = fmax(largest, fabs(x[q]));
        }
      }
      largest = reduce_lanes(largest, Max());
      return reduce_lanes(square, Sum());
    };
    A largest, scale = 1, square = reduce(scale, largest);
    // A zero row is not extreme, and a row with a NaN or an infinity cannot be helped by a scale.
    extreme = largest != 0 && !is_ordinary(largest) && largest - largest == 0;
    if (extreme) {
      scale = power_to_one(largest);
      square = reduce(scale, largest);
    }
    // rnorm is NaN for a row with a NaN or an infinity, and 0 for a zero row.
    A rnorm = square == 0 ? square : square - square == 0 ? 1 / sqrt(square) : square - square;
    return Pair<A>{rnorm, scale};
  };

  for (int i = block * warps + threadIdx.x / kWarp; i < g.ld; i += g.count_blocks * warps) {
    bool extreme_s = false, extreme_t = false;
    Pair<A> s = {0, 1}, t = {0, 1};
    if (i < g.n) {
      s = norm(g.s.z, i, extreme_s);
      t = norm(g.t.z, i, extreme_t);
    }
    if (lane == 0) {
      g.s.rnorm[i] = s.first;
      g.s.scale[i] = s.second;
      g.t.rnorm[i] = t.first;
      g.t.scale[i] = t.second;
    }
    counts[0] += s.first != 0;
    counts[1] += s.first != 0 && t.first != 0;
    counts[2] += extreme_s || extreme_t;
  }
#pragma unroll
  for (int k = 0; k < kRowCounts; ++k) counts[k] = lane == 0 ? counts[k] : 0;
  reduce_block(counts, Sum(), shared);
#pragma unroll
  for (int k = 0; k < kRowCounts; ++k)
    if (threadIdx.x == 0) g.counts[block * kRowCounts + k] = counts[k];
}

}  // namespace itrd
