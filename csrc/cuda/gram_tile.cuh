// One tile of both Gram matrices, and what becomes of it: the loss, the weights W of the gradient, and the row sums of
// W ∘ G that the projection of the gradient needs.
#pragma once

#include "gram.cuh"
#include "mma.cuh"

namespace itrd {

// The loss Σ G_s² (c_s − c_st G_t²) as a function of one pair of entries (s, t) of the Gram matrices.
template <class A>
struct MutualInformation {
  A c_s, c_st;  // 1/m_s² and 1/m_st², or those of the log form

  // W_ij = ¼ (∂L/∂G_ij + ∂L/∂G_ji), of student and of teacher; the loss itself is s · weight_s.
  __device__ A weight_s(A s, A t) const { return s * (c_s - c_st * t * t); }
  __device__ A weight_t(A s, A t) const { return -c_st * s * s * t; }
};

// One tile of z zᵀ of student and of teacher, of rows i0 … and j0 …: the dot products of scale · z, not yet divided by
// norms, so that products of half-precision features are exact.
template <class T, class Math, int tile>
struct GramTile {
  using A = wide_t<T>;
  using S = Shape<tile>;
  static constexpr int kSize = Chunk<T>::kSize, kElementsPerRow = kRowBytes / int(sizeof(T));
  static constexpr int kStageBytes = 2 * tile * kRowBytes;

  Accumulators<A, tile> s = {}, t = {};
  RowCounts counts;

  __device__ GramTile(const Gram<T>& g, int i0, int j0, unsigned char* shared) {
    int steps_s = (g.s.z.width + kElementsPerRow - 1) / kElementsPerRow,
        steps_t = (g.t.z.width + kElementsPerRow - 1) / kElementsPerRow;
    int steps = steps_s + steps_t;

    // First all student columns, then all teacher columns pass through the stages as one stream.
    auto each_chunk = [&](int step, auto&& visit) {
      unsigned char* stage = shared + step % kStages * kStageBytes;
#pragma unroll
      for (int i = threadIdx.x; i < 2 * tile * kChunks; i += S::kThreads) {
        int r = i / kChunks, c = i % kChunks;
        visit(stage + swizzled(r, c), r < tile ? i0 + r : j0 + r - tile, c * kSize);
      }
    };
    auto copy = [&](int step) {
      bool student = step < steps_s;
      const T* data = student ? g.s.z.data : g.t.z.data;
      int64_t stride = student ? g.s.z.stride : g.t.z.stride;
      int width = student ? g.s.z.width : g.t.z.width, k = (student ? step : step - steps_s) * kElementsPerRow;
      bool aligned = student ? g.s.z.sixteen : g.t.z.sixteen;
      each_chunk(step, [&](unsigned char* to, int row, int offset) {
        copy_chunk(to, data + row * stride + k + offset, row < g.n ? width - k - offset : 0, aligned);
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
        const A* scale = step < steps_s ? g.s.scale : g.t.scale;
        each_chunk(step, [&](unsigned char* to, int row, int) {
          if (row < g.n && scale[row] != 1) scale_chunk<T>(to, scale[row]);
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
  MutualInformation<A> loss = {over_square<A>(products.counts.m_s), over_square<A>(products.counts.m_st)};
  if (g.pass == GramPass::log_sums) loss = {1, 0};
  if (g.pass == GramPass::log_weights) loss = {g.coefficients[0], g.coefficients[1]};
  int i0 = ti * tile, j0 = tj * tile;
  bool mirrored = g.triangular && ti != tj;
  TileSums<A, tile> sums_s(shared), sums_t(shared + TileSums<A, tile>::kLength);

  A losses[2] = {};
#pragma unroll
  for (int i = 0; i < S::kSquaresM; ++i) {
    int row = i0 + S::row(i);
    A rs_i = g.s.rnorm[row], rt_i = g.t.rnorm[row];
#pragma unroll
    for (int j = 0; j < S::kSquaresN; ++j) {
      int column = j0 + S::column(j);
      A u_s[2], u_t[2], mirror_s[2], mirror_t[2];
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        A rs_j = g.s.rnorm[column + e], rt_j = g.t.rnorm[column + e];
        A g_s = products.s[i][j][e] * rs_i * rs_j, g_t = products.t[i][j][e] * rt_i * rt_j;
        bool diagonal = row == column + e;
        if (diagonal) {
          g_s = rs_i != 0;
          g_t = rt_i != 0;
        }
        A w_s = loss.weight_s(g_s, g_t), w_t = loss.weight_t(g_s, g_t);
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
