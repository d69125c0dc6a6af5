// 1/‖z_i‖ of the rows of student and teacher, which turn dot products of rows into cosines; how many rows are not zero.
#pragma once

#include "gram.cuh"
#include "streaming.cuh"

namespace itrd {

// All rows count, and nothing else is wanted of them.
struct EveryRow {
  static constexpr bool counted = true;

  __device__ bool has(int) const { return true; }
  template <class A>
  __device__ void note(int, A, A) const {}
};

// Writes rnorm and scale of every row of student and teacher, `padded` rows with those beyond the end, one warp per
// row, and counts[0 … 2], how many rows of each kind this block of `blocks` met. A row that `marks` does not have is
// zero, whatever it holds; `marks` is told which rows are zero.
template <class T, class Marks = EveryRow>
__device__ void row_norms(const Factor<T>& z, int padded, int block, int blocks, int* out, int* shared,
                          Marks marks = {}) {
  using A = wide_t<T>;
  int lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  int counts[kRowCounts] = {};

  // {1/‖scale · z_i‖, scale} of row i of a side
  auto norm = [&](const View<T>& side, int i, bool& extreme) {
    const T* row = side.row(i);
    // Returns Σ_j (scale z_ij)² and sets `largest` to max_j |z_ij|.
    auto reduce = [&](A scale, A& largest) {
      A square = 0;
      largest = 0;
      for (int strip = 0; strip * kStripColumns < side.width; ++strip) {
        A x[4];
        Columns<A> columns(strip, side.width, side.four);
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

  for (int i = block * warps + threadIdx.x / kWarp; i < padded; i += blocks * warps) {
    bool extreme_s = false, extreme_t = false;
    Pair<A> s = {0, 1}, t = {0, 1};
    if (i < z.n && marks.has(i)) {
      s = norm(z.s.z, i, extreme_s);
      t = norm(z.t.z, i, extreme_t);
    } else if (i < z.n) {
      s = t = {0, 0};
      extreme_s = true;
    }
    if (lane == 0) {
      z.s.rnorm[i] = s.first;
      z.s.scale[i] = s.second;
      z.t.rnorm[i] = t.first;
      z.t.scale[i] = t.second;
      marks.note(i, A(s.first != 0), A(t.first != 0));
    }
    counts[0] += marks.counted && s.first != 0;
    counts[1] += marks.counted && s.first != 0 && t.first != 0;
    counts[2] += extreme_s || extreme_t;
  }
#pragma unroll
  for (int k = 0; k < kRowCounts; ++k) counts[k] = lane == 0 ? counts[k] : 0;
  reduce_block(counts, Sum(), shared);
#pragma unroll
  for (int k = 0; k < kRowCounts; ++k)
    if (threadIdx.x == 0) out[k] = counts[k];
}

}  // namespace itrd
