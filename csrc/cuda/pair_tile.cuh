// What becomes of a tile of both Gram matrices under a loss of csrc/losses: its sums, the weights W of the gradient,
// the row sums of W ∘ G that the projection of the gradient needs, and those of the loss.
//
// A loss may be long, and is written once for all entries: the tile goes to shared memory, and a loop that is not
// unrolled takes an entry from there.
#pragma once

#include "gram_tile.cuh"
#include "pairs.cuh"

namespace itrd {

// A tile in shared memory. Within a block of 32 × 32 entries each lane of a warp owns a row, and in every step another
// column than all others, so that sums of rows stay in registers, and sums of columns meet in a fixed order.
template <class A, int tile>
struct PairTile {
  using S = Shape<tile>;
  static constexpr int kWarps = S::kThreads / kWarp, kBlocks = tile / kWarp;  // blocks to a side
  static constexpr int kSteps = tile * kBlocks / kWarps;                      // of a warp
  static constexpr int kStride = tile + 2;                                    // from one row to the next
  static constexpr int kSums = 4;  // Σ W G of student and of teacher, and the loss's row sums of both
  static constexpr int kLength = 2 * tile * kStride + 8 * tile + 2 * kSums * kWarps * tile;
  A* entries;    // (2, tile, kStride) cosines of student and teacher, and then W
  A* own;        // (4, tile) 1/‖z‖ of student and teacher, statistics of both
  A* columns;    // the same of the column rows
  A* row_parts;  // (kSums, kWarps, tile) the sums of each warp
  A* column_parts;

  __device__ explicit PairTile(A* shared)
      : entries(shared),
        own(entries + 2 * tile * kStride),
        columns(own + 4 * tile),
        row_parts(columns + 4 * tile),
        column_parts(row_parts + kSums * kWarps * tile) {}

  __device__ A& entry(int side, int row, int column) const { return entries[(side * tile + row) * kStride + column]; }
  __device__ static A& part(A* parts, int sum, int warp, int at) { return parts[(sum * kWarps + warp) * tile + at]; }
  __device__ static A total(A* parts, int sum, int at) {
    A result = 0;
    for (int w = 0; w < kWarps; ++w) result += part(parts, sum, w, at);
    return result;
  }

  // Puts the dot products there, with what belongs to the rows i0 … and j0 …
  template <class T, class Math>
  __device__ void fill(const Pairs<T>& p, const GramTile<T, Math, tile>& products, int i0, int j0) const {
#pragma unroll
    for (int i = 0; i < S::kSquaresM; ++i)
#pragma unroll
      for (int j = 0; j < S::kSquaresN; ++j) {
        int row = S::row(i), column = S::column(j);
        *reinterpret_cast<Pair<A>*>(&entry(0, row, column)) = {products.s[i][j][0], products.s[i][j][1]};
        *reinterpret_cast<Pair<A>*>(&entry(1, row, column)) = {products.t[i][j][0], products.t[i][j][1]};
      }
    auto ends = [&](A* to, const Factor<T>& rows, const RowMarks<A>& marks, int first) {
      for (int r = threadIdx.x; r < tile; r += S::kThreads) {
        to[r] = rows.s.rnorm[first + r];
        to[tile + r] = rows.t.rnorm[first + r];
        to[2 * tile + r] = marks.statistics[first + r];
        to[3 * tile + r] = marks.statistics[marks.padded + first + r];
      }
    };
    ends(own, p.gram.own_rows(), p.own, i0);
    ends(columns, p.gram.column_rows(), p.columns, j0);
    for (int i = threadIdx.x; i < 2 * kSums * kWarps * tile; i += S::kThreads) row_parts[i] = 0;
    __syncthreads();
  }
};

// Turns the products of tile row ti and tile column tj into what the tile adds to the sums (row `slot` of `losses`),
// its part of W, and its part of all row sums.
template <class T, class Math, int tile>
__device__ void finish_pairs(const Pairs<T>& p, const GramTile<T, Math, tile>& products, int ti, int tj, int slot,
                             wide_t<T>* shared) {
  using A = wide_t<T>;
  using S = Shape<tile>;
  using Held = PairTile<A, tile>;
  const Gram<T>& g = p.gram;
  int i0 = ti * tile, j0 = tj * tile, warp = S::warp(), lane = S::lane();
  bool mirrored = g.triangular && ti != tj;
  Held held(shared);
  held.fill(p, products, i0, j0);

  PairInput<A> x = {};
  x.c = p.coefficients ? PairCoefficients<A>{p.coefficients[0], p.coefficients[1]}
                       : pair_coefficients<A>(p.kind, products.counts.m_s, products.counts.m_st, p.parameters);
#pragma unroll
  for (int k = 0; k < kMostParameters; ++k) x.parameters[k] = p.parameters[k];
  int r = warp % Held::kBlocks * kWarp + lane, row = i0 + r;
  A rs_i = held.own[r], rt_i = held.own[tile + r], own_s = held.own[2 * tile + r], own_t = held.own[3 * tile + r];
  A sums[2] = {}, row_sums[Held::kSums] = {};
  int first = warp / Held::kBlocks * Held::kSteps;
#pragma unroll 1
  for (int step = first; step < first + Held::kSteps; ++step) {
    int c = step / kWarp * kWarp + (lane + step) % kWarp, column = j0 + c;
    A w_s = 0, w_t = 0;
    if (row < g.n && column < g.columns) {
      A rs_j = held.columns[c], rt_j = held.columns[tile + c];
      A dot_s = held.entry(0, r, c), dot_t = held.entry(1, r, c);
      x.g = dot_s * rs_i * rs_j;
      x.h = dot_t * rt_i * rt_j;
      bool diagonal = row + p.offset == column;
      if (diagonal) {
        x.g = rs_i != 0;
        x.h = rt_i != 0;
      }
      x.own_s = own_s;
      x.own_t = own_t;
      x.other_s = held.columns[2 * tile + c];
      x.other_t = held.columns[3 * tile + c];
      PairTerms<A> there = pair_terms(p.kind, x), back = there;
      w_s = there.w_s;
      w_t = there.w_t;
      if (p.one_sided) {
        // The pair seen from its other row.
        x.own_s = x.other_s;
        x.own_t = x.other_t;
        x.other_s = own_s;
        x.other_t = own_t;
        back = pair_terms(p.kind, x);
        w_s += back.w_s;
        w_t += back.w_t;
      }
      // What W_ii would add to the gradient is a multiple of ẑ_i, which the projection removes.
      if (diagonal) w_s = w_t = 0;
      // W_ij G_ij with the W that `store` rounds, so that the projection takes out what the products put along ẑ_i.
      auto projected = [](A w, A dot, A rnorm, A other) { return Math::round(w * other) * (dot * rnorm); };
      A terms[Held::kSums] = {projected(w_s, dot_s, rs_i, rs_j), projected(w_t, dot_t, rt_i, rt_j), there.row_s,
                              there.row_t};
      sums[0] += there.first;
      sums[1] += there.second;
#pragma unroll
      for (int k = 0; k < Held::kSums; ++k) row_sums[k] += terms[k];
      if (mirrored) {
        // Off the diagonal a tile stands for its mirror image too.
        sums[0] += back.first;
        sums[1] += back.second;
        terms[0] = projected(w_s, dot_s, rs_j, rs_i);
        terms[1] = projected(w_t, dot_t, rt_j, rt_i);
        terms[2] = back.row_s;
        terms[3] = back.row_t;
#pragma unroll
        for (int k = 0; k < Held::kSums; ++k) Held::part(held.column_parts, k, warp, c) += terms[k];
      }
    }
    held.entry(0, r, c) = w_s;
    held.entry(1, r, c) = w_t;
    // The next step has other lanes add to the same columns.
    __syncwarp();
  }
#pragma unroll
  for (int k = 0; k < Held::kSums; ++k) Held::part(held.row_parts, k, warp, r) = row_sums[k];
  __syncthreads();

  // W_ij/‖z_j‖ is what gram_gradient multiplies with z_j, so that features which are exact stay exact.
  auto store = [&](int side, A* weights) {
    if (!weights) return;
    for (int i = threadIdx.x; i < tile * tile; i += S::kThreads) {
      int a = i / tile, b = i % tile;
      weights[(i0 + a - g.row0) * g.ld + j0 + b] = Math::round(held.entry(side, a, b) * held.columns[side * tile + b]);
      if (mirrored) weights[(j0 + a) * g.ld + i0 + b] = Math::round(held.entry(side, b, a) * held.own[side * tile + b]);
    }
  };
  store(0, g.s.weights);
  store(1, g.t.weights);
  // Σ_j of the tile's rows i, and by symmetry Σ_i of its columns j.
  A* partial[Held::kSums] = {g.s.partial_projection, g.t.partial_projection, p.partial_row_sums_s,
                             p.partial_row_sums_t};
#pragma unroll
  for (int k = 0; k < Held::kSums; ++k)
    for (int at = threadIdx.x; partial[k] && at < tile; at += S::kThreads) {
      partial[k][int64_t(tj) * g.rows + i0 + at - g.row0] = Held::total(held.row_parts, k, at);
      if (mirrored) partial[k][int64_t(ti) * g.rows + j0 + at] = Held::total(held.column_parts, k, at);
    }
  __syncthreads();
  reduce_block(sums, Sum(), shared);
  if (threadIdx.x > 0) return;
  g.losses[2 * int64_t(slot)] = sums[0];
  g.losses[2 * int64_t(slot) + 1] = sums[1];
}

}  // namespace itrd
