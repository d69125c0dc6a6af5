// L_mi = Σ_ij G_s,ij² (c_s − c_st G_t,ij²) over tiles of both Gram matrices: the parts that the kernels are made of.
//
// row_norms prepares the rows; gram_tile forms one tile of G_s and G_t, the loss over it, and the weights W that the
// gradient 4 W ẑ needs; gram_gradient multiplies them. Nothing of size n×n but one panel of W reaches memory.
#pragma once

#include "mma.cuh"
#include "reduce.cuh"

namespace itrd {

constexpr int kRowCounts = 3;  // non-zero student rows, rows non-zero in both, extreme rows

template <class T>
struct Rows {
  using A = wide_t<T>;
  View<T> z;              // (n, d)
  A* rnorm;               // (ld) 1/‖scale · z_i‖, 0 for a zero row and beyond n
  A* scale;               // (ld) a power of two, 1 for all rows but those whose squares leave the range of A
  A* weights;             // (rows, ld) W_ij/‖z_j‖, or null where no gradient is wanted
  A* partial_projection;  // (column tiles, rows) Σ_j W_ij G_ij
  A* gradient;            // (n, d) contiguous
};

enum class GramPass { linear, log_sums, log_weights };

template <class T>
struct Gram {
  using A = wide_t<T>;
  Rows<T> s, t;
  int n, tiles;  // tiles to a side
  int* counts;   // (count_blocks, 3)
  int count_blocks;
  A* losses;        // (tiles of all panels, 2)
  A* coefficients;  // c_s and c_st of the log form
  GramPass pass;
  // Rows row0 … row0 + rows of W are formed: all of them by symmetry from the tiles on and below the diagonal when
  // `triangular`, else each tile for itself. `rows` and `ld` are whole tiles: what lies beyond n is zero.
  bool triangular;
  int row0, rows, ld, first_loss;  // rows · ld < 2³¹
};

// 1/‖z_i‖ of the rows of student and teacher, one warp per row, and the block's share of the counts.
template <class T>
__device__ void row_norms(const Gram<T>& g, int block, int* shared) {
  using A = wide_t<T>;
  int lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  int counts[kRowCounts] = {};

  // {1/‖scale · z‖, scale} of one row
  auto norm = [&](const View<T>& z, int i, bool& extreme) {
    const T* row = z.row(i);
    auto reduce = [&](A scale, A& largest) {
      A square = 0;
      largest = 0;
      for (int strip = 0; strip * 4 * kWarp < z.width; ++strip) {
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
    extreme = largest != 0 && !is_ordinary(largest) && largest - largest == 0;
    if (extreme) {
      scale = power_to_one(largest);
      square = reduce(scale, largest);
    }
    // NaN for a row with a NaN or inf, 0 for a zero row
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

struct RowCounts {
  int m_s = 0, m_st = 0;
  bool extreme = false;

  RowCounts() = default;
  template <class T>
  __device__ RowCounts(const Gram<T>& g, int* shared) {
    int total[kRowCounts] = {};
    for (int b = threadIdx.x; b < g.count_blocks; b += blockDim.x)
#pragma unroll
      for (int k = 0; k < kRowCounts; ++k) total[k] += g.counts[b * kRowCounts + k];
    reduce_block(total, Sum(), shared);
    m_s = total[0];
    m_st = total[1];
    extreme = total[2] != 0;
  }
};

// 1/m², and 0 where nothing was counted
template <class A>
__device__ inline A over_square(int m) {
  return m == 0 ? 0 : 1 / (A(m) * A(m));
}

}  // namespace itrd
