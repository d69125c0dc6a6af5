// Scalar products of rows as they lie in memory, sixteen at a time.
#pragma once

#include "cpu/simd/load_store.h"

namespace itrd::ITRD_ISA {

constexpr int64_t kSquare = 4;  // rows of either operand, on a side of a square of products

// The kSquare × kSquare numbers of a square, row by row, in as many registers as it takes.
template <class C>
struct SixteenOf {
  typedef C type __attribute__((vector_size(kSquare * kSquare * sizeof(C))));
};
template <class C>
using Sixteen = typename SixteenOf<C>::type;

// In lane i the sum of all lanes of x[i].
template <class C, int step = kLanes<C> / 2>
inline Vector<C> lane_sums(Vector<C>* x) {
#pragma GCC unroll 8
  for (int r = 0; r < step; ++r) {
    exchange<C, step>(x[r], x[r + step], std::make_index_sequence<kLanes<C>>{});
    x[r] += x[r + step];
  }
  if constexpr (step > 1) return lane_sums<C, step / 2>(x);
  return x[0];
}

// to[r][c] = or += x_r · y_c over `count` features, a multiple of the lanes.
template <class C>
inline void dots(const C* const (&x)[kSquare], const C* const (&y)[kSquare], int64_t count, C* to, bool add) {
  constexpr int64_t lanes = kLanes<C>;
  // As many at a time as there are registers for.
  constexpr int64_t columns = ITRD_VECTOR_BYTES == 64 ? kSquare : kSquare / 2;
  Vector<C> sums[kSquare][kSquare] = {};
#pragma GCC unroll 2
  for (int64_t first = 0; first < kSquare; first += columns) {
    Vector<C> part[kSquare][columns] = {};
    for (int64_t k = 0; k < count; k += lanes) {
      Vector<C> row[kSquare];
#pragma GCC unroll 4
      for (int64_t r = 0; r < kSquare; ++r) row[r] = load<C, C>(x[r] + k);
#pragma GCC unroll 4
      for (int64_t c = 0; c < columns; ++c) {
        const Vector<C> column = load<C, C>(y[first + c] + k);
#pragma GCC unroll 4
        for (int64_t r = 0; r < kSquare; ++r) part[r][c] += row[r] * column;
      }
    }
#pragma GCC unroll 4
    for (int64_t r = 0; r < kSquare; ++r)
#pragma GCC unroll 4
      for (int64_t c = 0; c < columns; ++c) sums[r][first + c] = part[r][c];
  }
#pragma GCC unroll 8
  for (int64_t i = 0; i < kSquare * kSquare; i += lanes) {
    const Vector<C> some = lane_sums<C>(&sums[0][0] + i);
    store<C, C>(to + i, add ? load<C, C>(to + i) + some : some);
  }
}

// The square with entry (r, c) at (c, r).
template <class C, std::size_t... I>
inline Sixteen<C> transposed(Sixteen<C> x, std::index_sequence<I...>) {
  return __builtin_shufflevector(x, x, (I % kSquare * kSquare + I / kSquare)...);
}
template <class C>
inline Sixteen<C> transposed(Sixteen<C> x) {
  return transposed<C>(x, std::make_index_sequence<kSquare * kSquare>());
}

}  // namespace itrd::ITRD_ISA
