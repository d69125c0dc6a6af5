// What the products of the Gram term multiply lane by lane: numbers, or, in a unit with ITRD_BF16, two of bfloat16.
#pragma once

#include "cpu/simd/vector.h"

namespace itrd::ITRD_ISA {

#ifdef ITRD_BF16
template <class T>
using Lane = std::conditional_t<std::is_same_v<T, BFloat16>, uint32_t, Wide<T>>;
#else
template <class T>
using Lane = Wide<T>;
#endif
template <class T>
constexpr int64_t PER_LANE = std::is_same_v<Lane<T>, Wide<T>> ? 1 : 2;

// sum + row · column; of two numbers a lane, both products.
template <class C, class Lane>
inline Vector<C> multiply_add(Vector<C> sum, Vector<Lane> row, Vector<Lane> column) {
  if constexpr (std::is_same_v<C, Lane>) {
    return sum + row * column;
  } else {
#ifdef ITRD_BF16
    return Vector<C>(_mm512_dpbf16_ps(__m512(sum), __m512bh(row), __m512bh(column)));
#endif
  }
}

// low_i and high_i, rounded to the nearest bfloat16, as one lane.
inline Vector<uint32_t> join(Vector<float> low, Vector<float> high) {
  return rounded_to_bfloat16(low) >> 16 | (rounded_to_bfloat16(high) & 0xffff0000);
}

// The low, or the high, halves of the lanes of x and then of y.
template <bool HIGH, std::size_t... I>
inline Vector<uint32_t> halves(Vector<uint32_t> x, Vector<uint32_t> y, std::index_sequence<I...>) {
  using Shorts = Vector<uint16_t>;
  return (Vector<uint32_t>)__builtin_shufflevector((Shorts)x, (Shorts)y, (2 * I + HIGH)...);
}
template <bool HIGH>
inline Vector<uint32_t> halves(Vector<uint32_t> x, Vector<uint32_t> y) {
  return halves<HIGH>(x, y, std::make_index_sequence<LANES<uint16_t>>());
}

}  // namespace itrd::ITRD_ISA
