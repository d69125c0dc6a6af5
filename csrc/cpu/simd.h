// Vectors of the instruction set that a translation unit is compiled for, on GCC's and Clang's vector types.
//
// A unit avx512.cpp, avx2.cpp or portable.cpp defines ITRD_ISA (a namespace name), VECTOR_BYTES, TILE_ROWS and
// TILE_VECTORS and includes the kernels, so that one source serves every instruction set.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "cpu/types.h"

namespace itrd::ITRD_ISA {

template <class C>
struct VectorOf {
  typedef C type __attribute__((vector_size(VECTOR_BYTES)));
};
template <class C>
using Vector = typename VectorOf<C>::type;

// As many numbers as a vector of twice their size.
template <class C>
struct HalfVectorOf {
  typedef C type __attribute__((vector_size(VECTOR_BYTES / 2)));
};
template <class C>
using HalfVector = typename HalfVectorOf<C>::type;

template <class C>
constexpr int LANES = VECTOR_BYTES / sizeof(C);

template <class C>
inline Vector<C> broadcast(C x) {
  return x - Vector<C>{};
}

// x_i + x_(i + STEP) in lane i, and so on until lane 0 has all.
template <class C, int STEP, std::size_t... I>
inline C sum_halves(Vector<C> x, std::index_sequence<I...> lanes) {
  x += __builtin_shufflevector(x, x, ((I + STEP) % LANES<C>)...);
  if constexpr (STEP > 1) return sum_halves<C, STEP / 2>(x, lanes);
  return x[0];
}
template <class C>
inline C sum_lanes(Vector<C> x) {
  return sum_halves<C, LANES<C> / 2>(x, std::make_index_sequence<LANES<C>>());
}

inline float to_float(float x) { return x; }
inline float to_float(BFloat16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float y;
  std::memcpy(&y, &bits, 4);
  return y;
}
inline float to_float(Half x) {
  // Subnormal halves are integers times 2^-24; the others get float's exponent bias, infinities and NaN its largest.
  const uint32_t sign = uint32_t(x.bits & 0x8000) << 16, magnitude = x.bits & 0x7fff;
  uint32_t bits = (magnitude << 13) + ((127 - 15) << 23);
  if (magnitude >= 0x7c00) bits += (127 - 15 + 1) << 23;
  float y;
  std::memcpy(&y, &bits, 4);
  if (magnitude < 0x0400) y = float(magnitude) * 0x1p-24f;
  std::memcpy(&bits, &y, 4);
  bits |= sign;
  std::memcpy(&y, &bits, 4);
  return y;
}
inline double to_float(double x) { return x; }

template <class T>
inline T from_float(float x);
template <>
inline float from_float<float>(float x) {
  return x;
}
template <>
inline BFloat16 from_float<BFloat16>(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if (x != x) return {uint16_t(bits >> 16 | 0x40)};
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};  // to nearest, ties to even
}
template <>
inline Half from_float<Half>(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const uint16_t sign = bits >> 16 & 0x8000;
  bits &= 0x7fffffff;
  if (bits > 0x7f800000) return {uint16_t(sign | 0x7e00)};
  if (bits >= 0x477ff000) return {uint16_t(sign | 0x7c00)};  // from 65520 on, infinity
  if (bits < 0x38800000) {                                   // below 2^-14: multiples of 2^-24, rounded by the addition
    float y;
    std::memcpy(&y, &bits, 4);
    y += 0.5f;
    std::memcpy(&bits, &y, 4);
    return {uint16_t(sign | (bits - 0x3f000000))};
  }
  return {uint16_t(sign | ((bits - ((127 - 15) << 23) + 0xfff + (bits >> 13 & 1)) >> 13))};
}

// Sums and products of T are formed in Wide<T>.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

// The nearest bfloat16, ties to even, in the upper halves of the lanes; the lower halves are what they are.
inline Vector<uint32_t> rounded_to_bfloat16(Vector<float> x) {
  const auto bits = (Vector<uint32_t>)x;
  return x == x ? bits + 0x7fff + (bits >> 16 & 1) : bits | 0x400000;
}

template <class T, class C>
inline Vector<C> load(const T* from) {
  Vector<C> x;
  if constexpr (std::is_same_v<T, C>) {
    std::memcpy(&x, from, sizeof x);
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    HalfVector<uint16_t> bits;
    std::memcpy(&bits, from, sizeof bits);
    x = (Vector<float>)(__builtin_convertvector(bits, Vector<uint32_t>) << 16);
  } else {
    for (int i = 0; i < LANES<C>; ++i) x[i] = to_float(from[i]);
  }
  return x;
}

// The first `count` < LANES entries; the other lanes are zero.
template <class T, class C>
inline Vector<C> load_some(const T* from, int64_t count) {
  Vector<C> x{};
  for (int i = 0; i < count; ++i) x[i] = to_float(from[i]);
  return x;
}

// A vector of T as it lies in memory, from one of C.
template <class T, class C>
inline auto narrowed(Vector<C> x) {
  if constexpr (std::is_same_v<T, C>) {
    return x;
  } else if constexpr (std::is_same_v<T, BFloat16>) {
    return __builtin_convertvector(rounded_to_bfloat16((Vector<float>)x) >> 16, HalfVector<uint16_t>);
  } else {
    HalfVector<uint16_t> y;
    for (int i = 0; i < LANES<C>; ++i) y[i] = from_float<T>(x[i]).bits;
    return y;
  }
}

template <class T, class C>
inline void store(T* to, Vector<C> x) {
  const auto y = narrowed<T, C>(x);
  std::memcpy(to, &y, sizeof y);
}

// Past the caches, to a multiple of the vector's size; for what is too large to be found in them again.
template <class T, class C>
inline void stream(T* to, Vector<C> x) {
  const auto y = narrowed<T, C>(x);
#if defined(__x86_64__) && VECTOR_BYTES > 16
  asm volatile("vmovntps %1, %0" : "=m"(*reinterpret_cast<std::remove_const_t<decltype(y)>*>(to)) : "v"(y));
#else
  std::memcpy(to, &y, sizeof y);
#endif
}

// What has been streamed is there for other threads from here on.
inline void end_of_stream() {
#if defined(__x86_64__)
  asm volatile("sfence" ::: "memory");
#endif
}

template <class T, class C>
inline void store_some(T* to, Vector<C> x, int64_t count) {
  for (int i = 0; i < count; ++i) {
    if constexpr (std::is_same_v<T, C>) {
      to[i] = x[i];
    } else {
      to[i] = from_float<T>(x[i]);
    }
  }
}

// All lanes, or the first `count` where there are no more.
template <class T, class C>
inline Vector<C> load_within(const T* from, int64_t count) {
  return count >= LANES<C> ? load<T, C>(from) : load_some<T, C>(from, count);
}

template <class T, class C>
inline void store_within(T* to, Vector<C> x, int64_t count) {
  count >= LANES<C> ? store<T, C>(to, x) : store_some<T, C>(to, x, count);
}

// Exchange the off-diagonal blocks of size STEP between rows r and r + STEP.
template <class C, int STEP, std::size_t... I>
inline void exchange(Vector<C>& low, Vector<C>& high, std::index_sequence<I...>) {
  constexpr int N = LANES<C>;
  const Vector<C> a = low, b = high;
  low = __builtin_shufflevector(a, b, ((I & STEP) ? int(I) - STEP + N : int(I))...);
  high = __builtin_shufflevector(a, b, ((I & STEP) ? int(I) + N : int(I) + STEP)...);
}

template <class C, int STEP = LANES<C> / 2>
inline void transpose(Vector<C>* rows) {
#pragma GCC unroll 16
  for (int r = 0; r < LANES<C>; ++r) {
    if (!(r & STEP)) exchange<C, STEP>(rows[r], rows[r + STEP], std::make_index_sequence<LANES<C>>{});
  }
  if constexpr (STEP > 1) transpose<C, STEP / 2>(rows);
}

}  // namespace itrd::ITRD_ISA
