// Vectors of the instruction set that a translation unit is compiled for, on GCC's and Clang's vector types.
//
// A unit amx.cpp, avx512_bf16.cpp, avx512.cpp, avx2.cpp or portable.cpp defines ITRD_ISA (a namespace name),
// VECTOR_BYTES, TILE_ROWS and TILE_VECTORS, with more ITRD_TILES or ITRD_BF16, and includes the kernels, so that one
// source serves every instruction set.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "cpu/simd/float16.h"

namespace itrd::ITRD_ISA {

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

// Sums and products of T are formed in Wide<T>.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
inline Wide<T> to_float(T x) {
  if constexpr (std::is_same_v<T, BFloat16>)
    return as_float(uint32_t(x.bits) << 16);
  else if constexpr (std::is_same_v<T, Half>)
    return from_half(uint32_t(x.bits));
  else
    return x;
}

template <class T, class C>
inline Vector<C> load(const T* from) {
  if constexpr (std::is_same_v<T, C>) {
    Vector<C> x;
    std::memcpy(&x, from, sizeof x);
    return x;
  } else {
    HalfVector<uint16_t> half;
    std::memcpy(&half, from, sizeof half);
    const auto bits = __builtin_convertvector(half, Vector<uint32_t>);
    return std::is_same_v<T, BFloat16> ? as_float(bits << 16) : from_half(bits);
  }
}

// The first `count` < LANES entries; the other lanes are zero.
template <class T, class C>
inline Vector<C> load_some(const T* from, int64_t count) {
  T some[LANES<C>] = {};
  for (int64_t i = 0; i < count; ++i) some[i] = from[i];
  return load<T, C>(some);
}

// A vector of T as it lies in memory, from one of C.
template <class T, class C>
inline auto narrowed(Vector<C> x) {
  if constexpr (std::is_same_v<T, C>)
    return x;
  else
    return __builtin_convertvector(std::is_same_v<T, BFloat16> ? rounded_to_bfloat16(x) >> 16 : rounded_to_half(x),
                                   HalfVector<uint16_t>);
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
  T some[LANES<C>];
  store<T, C>(some, x);
  for (int64_t i = 0; i < count; ++i) to[i] = some[i];
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
