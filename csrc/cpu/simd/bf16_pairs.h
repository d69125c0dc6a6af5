// What the Gram products multiply lane by lane: single numbers or, in a unit with ITRD_BF16, pairs of
// bfloat16 numbers.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include "cpu/simd/float16.h"

namespace itrd::ITRD_ISA {

#ifdef ITRD_BF16
template <class T>
using Lane = std::conditional_t<std::is_same_v<T, BFloat16>, uint32_t, Wide<T>>;
#else
template <class T>
using Lane = Wide<T>;
#endif
// Numbers in a lane.
template <class T>
constexpr int64_t kPerLane = std::is_same_v<Lane<T>, Wide<T>> ? 1 : 2;

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

// In lane i the numbers low_i and high_i, both rounded to the nearest bfloat16.
inline Vector<uint32_t> join(Vector<float> low, Vector<float> high) {
  return rounded_to_bfloat16(low) >> 16 | (rounded_to_bfloat16(high) & 0xffff0000);
}

// The low halves of the lanes of x and then of y, or the high ones.
template <bool high, std::size_t... I>
inline Vector<uint32_t> halves(Vector<uint32_t> x, Vector<uint32_t> y, std::index_sequence<I...>) {
  using Shorts = Vector<uint16_t>;
  return (Vector<uint32_t>)__builtin_shufflevector((Shorts)x, (Shorts)y, (2 * I + high)...);
}
template <bool high>
inline Vector<uint32_t> halves(Vector<uint32_t> x, Vector<uint32_t> y) {
  return halves<high>(x, y, std::make_index_sequence<kLanes<uint16_t>>());
}

}  // namespace itrd::ITRD_ISA
