// The register tile that both products of the Gram engines run on, and what lies around it.
#pragma once

#include "cpu/gram/schedule.h"
#include "cpu/simd/bf16_pairs.h"
#include "cpu/simd/load_store.h"

namespace itrd::ITRD_ISA {

// Rows of the register tile, and vectors in each of them.
constexpr int kRegisterRows = ITRD_REGISTER_ROWS, kRegisterVectors = ITRD_REGISTER_VECTORS;
constexpr int64_t kFeatureStep = 8;  // packed features are padded to a multiple of this

// Calls write(r, c, sums) with the vectors of sums
//   Σ_p Σ_k a[p·a_step + r·row_step + k·k_step] b[p·k_end + k][c…]
// for kRegisterRows rows r and the vectors of `width` columns; rows of b are b_step apart. The sums stay in registers
// all along.
template <class C, int64_t row_step, int64_t k_step, int64_t width = kPanel, class Lane, class F>
inline void multiply(const Lane* __restrict a, const Lane* __restrict b, int64_t k_end, F&& write, int64_t panels = 1,
                     int64_t a_step = 0, int64_t b_step = kPanel) {
  constexpr int64_t lanes = kLanes<C>, vectors = std::min<int64_t>(kRegisterVectors, width / lanes);
  for (int64_t c = 0; c < width; c += vectors * lanes) {
    Vector<C> sum[kRegisterRows][vectors];
#pragma GCC unroll 16
    for (int r = 0; r < kRegisterRows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) sum[r][v] = Vector<C>{};
    const Lane *x = a, *y = b + c;
    for (int64_t p = 0; p < panels; ++p, x += a_step) {
      // The next panel lies elsewhere, where no hardware prefetcher looks.
      if (p + 1 < panels)
        for (int64_t i = 0; i < kRegisterRows * row_step; i += 64 / int64_t(sizeof(Lane)))
          __builtin_prefetch(x + a_step + i);
      for (int64_t k = 0; k < k_end; ++k, y += b_step) {
        Vector<Lane> column[vectors];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; ++v) column[v] = load<Lane, Lane>(y + v * lanes);
#pragma GCC unroll 16
        for (int r = 0; r < kRegisterRows; ++r) {
          const Vector<Lane> row = broadcast(x[r * row_step + k * k_step]);
#pragma GCC unroll 4
          for (int v = 0; v < vectors; ++v) sum[r][v] = multiply_add<C, Lane>(sum[r][v], row, column[v]);
        }
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRegisterRows; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < vectors; ++v) write(r, c + v * lanes, sum[r][v]);
  }
}

// What `multiply` can write to: to[r][c] = or += its sums, rows kPanel apart.
template <class C>
struct Accumulate {
  C* to;
  bool add;
  void operator()(int64_t r, int64_t c, Vector<C> sums) const {
    C* const at = to + r * kPanel + c;
    store<C, C>(at, add ? load<C, C>(at) + sums : sums);
  }
};

// to[c][r] = from[r][c] of `side` rows and columns, whose rows are kPanel apart in both.
template <int64_t side = kPanel, class C>
inline void transpose_tile(const C* from, C* to) {
  constexpr int64_t lanes = kLanes<C>;
  for (int64_t r = 0; r < side; r += lanes)
    for (int64_t c = 0; c < side; c += lanes) {
      Vector<C> x[lanes];
      for (int64_t i = 0; i < lanes; ++i) x[i] = load<C, C>(from + (r + i) * kPanel + c);
      transpose<C>(x);
      for (int64_t i = 0; i < lanes; ++i) store<C, C>(to + (c + i) * kPanel + r, x[i]);
    }
}

}  // namespace itrd::ITRD_ISA
