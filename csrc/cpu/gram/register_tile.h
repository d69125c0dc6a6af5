// The register tile that both products of the Gram term run on, and what lies around it.
#pragma once

#include "cpu/gram/schedule.h"
#include "cpu/simd/bf16_pairs.h"

namespace itrd::ITRD_ISA {

constexpr int64_t FEATURE_STEP = 8;  // packed features are padded to a multiple of this

// write(r, c, sums) of Σ_p Σ_k a[p·a_step + r·ROW_STEP + k·K_STEP] b[p·k_end + k][c…] for TILE_ROWS rows r and the
// vectors of WIDTH columns; rows of b are b_step apart. The sums stay in registers all along.
template <class C, int64_t ROW_STEP, int64_t K_STEP, int64_t WIDTH = PANEL, class Lane, class F>
inline void multiply(const Lane* __restrict a, const Lane* __restrict b, int64_t k_end, F&& write, int64_t panels = 1,
                     int64_t a_step = 0, int64_t b_step = PANEL) {
  constexpr int64_t L = LANES<C>, VECTORS = std::min<int64_t>(TILE_VECTORS, WIDTH / L);
  for (int64_t c = 0; c < WIDTH; c += VECTORS * L) {
    Vector<C> sum[TILE_ROWS][VECTORS];
#pragma GCC unroll 16
    for (int r = 0; r < TILE_ROWS; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) sum[r][v] = Vector<C>{};
    const Lane *x = a, *y = b + c;
    for (int64_t p = 0; p < panels; ++p, x += a_step) {
      // The next panel lies elsewhere, where no hardware prefetcher looks.
      if (p + 1 < panels)
        for (int64_t i = 0; i < TILE_ROWS * ROW_STEP; i += 64 / int64_t(sizeof(Lane)))
          __builtin_prefetch(x + a_step + i);
      for (int64_t k = 0; k < k_end; ++k, y += b_step) {
        Vector<Lane> column[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; ++v) column[v] = load<Lane, Lane>(y + v * L);
#pragma GCC unroll 16
        for (int r = 0; r < TILE_ROWS; ++r) {
          const Vector<Lane> row = broadcast(x[r * ROW_STEP + k * K_STEP]);
#pragma GCC unroll 4
          for (int v = 0; v < VECTORS; ++v) sum[r][v] = multiply_add<C, Lane>(sum[r][v], row, column[v]);
        }
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < TILE_ROWS; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < VECTORS; ++v) write(r, c + v * L, sum[r][v]);
  }
}

// For `multiply`: to[r][c] = or += its sums, rows PANEL apart.
template <class C>
struct Accumulate {
  C* to;
  bool add;
  void operator()(int64_t r, int64_t c, Vector<C> sums) const {
    C* const at = to + r * PANEL + c;
    store<C, C>(at, add ? load<C, C>(at) + sums : sums);
  }
};

// to[c][r] = from[r][c] of SIDE rows and columns, both of a stride of PANEL.
template <int64_t SIDE = PANEL, class C>
inline void transpose_tile(const C* from, C* to) {
  constexpr int64_t L = LANES<C>;
  for (int64_t r = 0; r < SIDE; r += L)
    for (int64_t c = 0; c < SIDE; c += L) {
      Vector<C> x[L];
      for (int64_t i = 0; i < L; ++i) x[i] = load<C, C>(from + (r + i) * PANEL + c);
      transpose<C>(x);
      for (int64_t i = 0; i < L; ++i) store<C, C>(to + (c + i) * PANEL + r, x[i]);
    }
}

}  // namespace itrd::ITRD_ISA
