// Scalar products of rows as they lie in memory, sixteen at a time.
#pragma once

#include "cpu/simd/vector.h"

namespace itrd::ITRD_ISA {

constexpr int64_t SQUARE = 4;  // rows of either operand

// Sixteen numbers, row by row those of SQUARE × SQUARE pairs; registers as it takes.
template <class C>
struct SixteenOf {
  typedef C type __attribute__((vector_size(SQUARE * SQUARE * sizeof(C))));
};
template <class C>
using Sixteen = typename SixteenOf<C>::type;

// Σ of the lanes of x[i] in lane i.
template <class C, int STEP = LANES<C> / 2>
inline Vector<C> lane_sums(Vector<C>* x) {
#pragma GCC unroll 8
  for (int r = 0; r < STEP; ++r) {
    exchange<C, STEP>(x[r], x[r + STEP], std::make_index_sequence<LANES<C>>{});
    x[r] += x[r + STEP];
  }
  if constexpr (STEP > 1) return lane_sums<C, STEP / 2>(x);
  return x[0];
}

// to[r][c] = or += x_r · y_c of rows x, y over `count` features, a multiple of the lanes.
template <class C>
inline void dots(const C* const (&x)[SQUARE], const C* const (&y)[SQUARE], int64_t count, C* to, bool add) {
  constexpr int64_t L = LANES<C>, COLUMNS = VECTOR_BYTES == 64 ? SQUARE : SQUARE / 2;  // that there are registers for
  Vector<C> sums[SQUARE][SQUARE] = {};
#pragma GCC unroll 2
  for (int64_t first = 0; first < SQUARE; first += COLUMNS) {
    Vector<C> part[SQUARE][COLUMNS] = {};
    for (int64_t k = 0; k < count; k += L) {
      Vector<C> row[SQUARE];
#pragma GCC unroll 4
      for (int64_t r = 0; r < SQUARE; ++r) row[r] = load<C, C>(x[r] + k);
#pragma GCC unroll 4
      for (int64_t c = 0; c < COLUMNS; ++c) {
        const Vector<C> column = load<C, C>(y[first + c] + k);
#pragma GCC unroll 4
        for (int64_t r = 0; r < SQUARE; ++r) part[r][c] += row[r] * column;
      }
    }
#pragma GCC unroll 4
    for (int64_t r = 0; r < SQUARE; ++r)
#pragma GCC unroll 4
      for (int64_t c = 0; c < COLUMNS; ++c) sums[r][first + c] = part[r][c];
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < SQUARE * SQUARE; i += L) {
    const Vector<C> some = lane_sums<C>(&sums[0][0] + i);
    store<C, C>(to + i, add ? load<C, C>(to + i) + some : some);
  }
}

// Entry (r, c) at (c, r).
template <class C, std::size_t... I>
inline Sixteen<C> turned(Sixteen<C> x, std::index_sequence<I...>) {
  return __builtin_shufflevector(x, x, (I % SQUARE * SQUARE + I / SQUARE)...);
}
template <class C>
inline Sixteen<C> turned(Sixteen<C> x) {
  return turned<C>(x, std::make_index_sequence<SQUARE * SQUARE>());
}

}  // namespace itrd::ITRD_ISA
