// What the kernels on Gram matrices share: the features, the workspace, and which part of W a launch forms.
//
// A loss of pairs of rows is summed over tiles of both Gram matrices. row_norms.cuh prepares the rows; gram_tile.cuh
// forms one tile of G_s and G_t, mutual_information_tile.cuh or pair_tile.cuh the loss over it, and the weights W that
// the gradient 4 W ẑ needs; gram_gradient.cuh multiplies them. Nothing of size n × n but one panel of W reaches memory.
#pragma once

#include "reduce.cuh"

namespace itrd {

constexpr int kRowCounts = 3;  // student rows that are not zero, rows that are zero in neither, extreme rows

// Features, and what belongs to their rows.
template <class T>
struct Rows {
  using A = wide_t<T>;
  View<T> z;  // (n, d)
  A* rnorm;   // (n in whole tiles) 1/‖scale · z_i‖, 0 for a zero row and beyond n
  A* scale;   // (the same) a power of two that brings an extreme row to order one; 1 for all others; 0: a row left out
};

// One side, student or teacher: G holds the products of its own rows with its column rows, which are mostly the same.
template <class T>
struct Side {
  using A = wide_t<T>;
  Rows<T> own, columns;
  A* weights;             // (rows, ld) W_ij/‖z_j‖; null where no gradient is wanted
  A* partial_projection;  // (tiles, rows) Σ_j W_ij G_ij over the columns j of each tile; null like `weights`
  A* gradient;            // (n, d) contiguous, of the own rows; null where it is not wanted
};

// The rows of one factor of G_s and of G_t.
template <class T>
struct Factor {
  const Rows<T>&s, &t;
  int n;
};

// The linear loss takes one pass over the tiles. The log form takes two: its coefficients are known after the first.
enum class GramPass { linear, log_sums, log_weights };

// The Gram term of one launch.
template <class T>
struct Gram {
  using A = wide_t<T>;
  Side<T> s, t;
  int n, columns, tiles;  // own rows, column rows, and tiles to a row of G
  int* counts;            // (count_blocks, 3) how many rows each block of `statistics` counted
  int count_blocks;
  A* losses;        // (tiles of all panels, 2) Σ G_s² (c_s − c_st G_t²) of a tile (in log_sums Σ G_s²), Σ (G_s G_t)²
  A* coefficients;  // (2) c_s and c_st of the log form
  GramPass pass;
  // A launch forms rows row0 … row0 + rows of W, a panel. If `triangular` these are all rows, made by symmetry from the
  // tiles on and below the diagonal; else each tile is made for itself. A row of W has ld ≥ columns elements. `rows`
  // and `ld` are whole tiles, zero beyond n and columns, and rows · ld < 2³¹.
  bool triangular;
  int row0, rows, ld;
  int first_loss;  // the panel's first row of `losses`

  __device__ Factor<T> own_rows() const { return {s.own, t.own, n}; }
  __device__ Factor<T> column_rows() const { return {s.columns, t.columns, columns}; }
};

// How many rows of the student are not zero, and how many rows are zero on neither side; whether any row is extreme.
// Added up from `counts` by all threads of a block, with room in `shared` for three numbers of each warp.
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

// Row and column of tile number b of those on and below the diagonal: b = row (row + 1)/2 + column.
__device__ inline void triangular(int b, int& row, int& column) {
  row = int((sqrt(8.0f * b + 1) - 1) / 2);
  while (row * int64_t(row + 1) / 2 > b) --row;
  while ((row + 1) * int64_t(row + 2) / 2 <= b) ++row;
  column = b - int(row * int64_t(row + 1) / 2);
}

}  // namespace itrd
