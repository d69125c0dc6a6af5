// What becomes of a tile of both Gram matrices under the mutual information loss: the loss, the weights W of the
// gradient, and the row sums of W ∘ G that the projection of the gradient needs. The entries stay in registers.
#pragma once

#include "../losses/mutual_information.h"
#include "gram_tile.cuh"

namespace itrd {

// Sums of a tile's entries over each of its rows and, for the mirror image of the tile, over each of its columns; added
// up in a fixed order, in shared memory.
template <class A, int tile>
struct TileSums {
  using S = Shape<tile>;
  A* rows;     // (kWarpsN, tile) of each warp's part of a row
  A* columns;  // (kWarpsM, tile) of each warp's part of a column

  static constexpr int kLength = (S::kWarpsN + S::kWarpsM) * tile;

  __device__ explicit TileSums(A* shared) : rows(shared), columns(shared + S::kWarpsN * tile) {}

  __device__ void add(const Accumulators<A, tile>& terms, bool mirrored) const {
#pragma unroll
    for (int i = 0; i < S::kSquaresM; ++i) {
      A sum = 0;
#pragma unroll
      for (int j = 0; j < S::kSquaresN; ++j) sum += terms[i][j][0] + terms[i][j][1];
      sum = reduce_lanes(sum, Sum(), 1, 4);
      if (S::lane() % 4 == 0) rows[S::warp() % S::kWarpsN * tile + S::row(i)] = sum;
    }
    if (!mirrored) return;
#pragma unroll
    for (int j = 0; j < S::kSquaresN; ++j)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        A sum = 0;
#pragma unroll
        for (int i = 0; i < S::kSquaresM; ++i) sum += terms[i][j][e];
        sum = reduce_lanes(sum, Sum(), 4, kWarp);
        if (S::lane() / 4 == 0) columns[S::warp() / S::kWarpsN * tile + S::column(j) + e] = sum;
      }
  }
  __device__ A row_total(int r) const {
    A sum = 0;
    for (int w = 0; w < S::kWarpsN; ++w) sum += rows[w * tile + r];
    return sum;
  }
  __device__ A column_total(int r) const {
    A sum = 0;
    for (int w = 0; w < S::kWarpsM; ++w) sum += columns[w * tile + r];
    return sum;
  }
};

// Turns the products of tile row ti and tile column tj into the tile's loss (row `slot` of `losses`), its part of W,
// and its part of the projection.
template <class T, class Math, int tile>
__device__ void finish_tile(const Gram<T>& g, GramTile<T, Math, tile>& products, int ti, int tj, int slot,
                            wide_t<T>* shared) {
  using A = wide_t<T>;
  using S = Shape<tile>;
  using Loss = MutualInformation;
  PairCoefficients<A> c = Loss::coefficients<A>(products.counts.m_s, products.counts.m_st, nullptr);
  if (g.pass == GramPass::log_sums) c = {1, 0};
  if (g.pass == GramPass::log_weights) c = {g.coefficients[0], g.coefficients[1]};
  int i0 = ti * tile, j0 = tj * tile;
  bool mirrored = g.triangular && ti != tj;
  TileSums<A, tile> sums_s(shared), sums_t(shared + TileSums<A, tile>::kLength);

  A losses[2] = {};
#pragma unroll
  for (int i = 0; i < S::kSquaresM; ++i) {
    int row = i0 + S::row(i);
    A rs_i = g.s.own.rnorm[row], rt_i = g.t.own.rnorm[row];
#pragma unroll
    for (int j = 0; j < S::kSquaresN; ++j) {
      int column = j0 + S::column(j);
      A u_s[2], u_t[2], mirror_s[2], mirror_t[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        A rs_j = g.s.own.rnorm[column + e], rt_j = g.t.own.rnorm[column + e];
        A g_s = products.s[i][j][e] * rs_i * rs_j, g_t = products.t[i][j][e] * rt_i * rt_j;
        bool diagonal = row == column + e;
        if (diagonal) {
          g_s = rs_i != 0;
          g_t = rt_i != 0;
        }
        A w_s = Loss::weight_s(g_s, g_t, c.first, c.second), w_t = Loss::weight_t(g_s, g_t, c.second);
        losses[0] += g_s * w_s;
        losses[1] += g_s * g_t * (g_s * g_t);
        // What W_ii would add to the gradient is a multiple of ẑ_i, which the projection removes.
        if (diagonal) w_s = w_t = 0;
        // The dot products have done their work, and W ∘ G takes their place.
        products.s[i][j][e] = w_s * g_s;
        products.t[i][j][e] = w_t * g_t;
        // W_ij/‖z_j‖ is what gram_gradient multiplies with z_j, so that features which are exact stay exact.
        u_s[e] = Math::round(w_s * rs_j);
        u_t[e] = Math::round(w_t * rt_j);
        mirror_s[e] = Math::round(w_s * rs_i);
        mirror_t[e] = Math::round(w_t * rt_i);
      }
      int at = (row - g.row0) * g.ld + column, mirrored_at = column * g.ld + row;
      auto store = [&](A* weights, const A(&u)[2], const A(&mirror)[2]) {
        *reinterpret_cast<Pair<A>*>(weights + at) = {u[0], u[1]};
        if (mirrored) {
          weights[mirrored_at] = mirror[0];
          weights[mirrored_at + g.ld] = mirror[1];
        }
      };
      if (g.s.weights) store(g.s.weights, u_s, mirror_s);
      if (g.t.weights) store(g.t.weights, u_t, mirror_t);
    }
  }
  // Σ_j W_ij G_ij of the tile's rows i, and by symmetry Σ_i W_ij G_ij of its columns j.
  if (g.s.weights) sums_s.add(products.s, mirrored);
  if (g.t.weights) sums_t.add(products.t, mirrored);
  __syncthreads();
  auto project = [&](A* partial_projection, const TileSums<A, tile>& sums) {
    for (int r = threadIdx.x; r < tile; r += S::kThreads) {
      partial_projection[tj * g.rows + i0 + r - g.row0] = sums.row_total(r);
      if (mirrored) partial_projection[ti * g.rows + j0 + r] = sums.column_total(r);
    }
  };
  if (g.s.weights) project(g.s.partial_projection, sums_s);
  if (g.t.weights) project(g.t.partial_projection, sums_t);
  __syncthreads();

  // Off the diagonal a tile stands for its mirror image too.
  A times = mirrored ? 2 : 1;
  reduce_block(losses, Sum(), shared);
  if (threadIdx.x == 0 && g.pass != GramPass::log_weights) {
    g.losses[2 * int64_t(slot)] = times * losses[0];
    g.losses[2 * int64_t(slot) + 1] = times * losses[1];
  }
}

}  // namespace itrd
