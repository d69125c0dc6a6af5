// Vectors from memory and back. In memory the numbers are of a type T; in a vector they are of type C, which is T
// itself or, for float16 and bfloat16, float.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cpu/simd/float16.h"

namespace itrd::ITRD_ISA {

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

// The first `count` < kLanes entries; the other lanes are zero.
template <class T, class C>
inline Vector<C> load_some(const T* from, int64_t count) {
  T some[kLanes<C>] = {};
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
#if defined(__x86_64__) && ITRD_VECTOR_BYTES > 16
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
  T some[kLanes<C>];
  store<T, C>(some, x);
  for (int64_t i = 0; i < count; ++i) to[i] = some[i];
}

// All lanes, or the first `count` where there are no more.
template <class T, class C>
inline Vector<C> load_within(const T* from, int64_t count) {
  return count >= kLanes<C> ? load<T, C>(from) : load_some<T, C>(from, count);
}

template <class T, class C>
inline void store_within(T* to, Vector<C> x, int64_t count) {
  count >= kLanes<C> ? store<T, C>(to, x) : store_some<T, C>(to, x, count);
}

}  // namespace itrd::ITRD_ISA
