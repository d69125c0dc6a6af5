// Vectors of the instruction set that a translation unit is compiled for, on GCC's and Clang's vector types.
//
// A unit of cpu/isa (amx.cpp, avx512_bf16.cpp, avx512.cpp, avx2.cpp or portable.cpp) defines ITRD_ISA, the name of its
// namespace; ITRD_VECTOR_BYTES, the size of a vector; ITRD_REGISTER_ROWS and ITRD_REGISTER_VECTORS, the size of the
// register tile (cpu/gram/register_tile.h); and perhaps ITRD_AMX or ITRD_BF16. Then it includes the kernels, so that
// one source serves every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

namespace itrd::ITRD_ISA {

// As many numbers of type C as a register of this instruction set holds.
template <class C>
struct VectorOf {
  typedef C type __attribute__((vector_size(ITRD_VECTOR_BYTES)));
};
template <class C>
using Vector = typename VectorOf<C>::type;

// As many numbers as a vector of numbers of twice their size has.
template <class C>
struct HalfVectorOf {
  typedef C type __attribute__((vector_size(ITRD_VECTOR_BYTES / 2)));
};
template <class C>
using HalfVector = typename HalfVectorOf<C>::type;

// How many numbers of type C a vector holds.
template <class C>
constexpr int kLanes = ITRD_VECTOR_BYTES / sizeof(C);

// std::bit_cast, which C++17 lacks; compilers make the same of it.
template <class To, class From>
inline To bit_cast(const From& from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// x in every lane.
template <class C>
inline Vector<C> broadcast(C x) {
  return x - Vector<C>{};
}

// Adds lane i + step to lane i, then half as far, and so on until lane 0 has the sum of all.
template <class C, int step, std::size_t... I>
inline C sum_halves(Vector<C> x, std::index_sequence<I...> lanes) {
  x += __builtin_shufflevector(x, x, ((I + step) % kLanes<C>)...);
  if constexpr (step > 1) return sum_halves<C, step / 2>(x, lanes);
  return x[0];
}
template <class C>
inline C sum_lanes(Vector<C> x) {
  return sum_halves<C, kLanes<C> / 2>(x, std::make_index_sequence<kLanes<C>>());
}

// Exchange the off-diagonal blocks of size step between rows r and r + step.
template <class C, int step, std::size_t... I>
inline void exchange(Vector<C>& low, Vector<C>& high, std::index_sequence<I...>) {
  constexpr int lanes = kLanes<C>;
  const Vector<C> a = low, b = high;
  low = __builtin_shufflevector(a, b, ((I & step) ? int(I) - step + lanes : int(I))...);
  high = __builtin_shufflevector(a, b, ((I & step) ? int(I) + lanes : int(I) + step)...);
}

template <class C, int step = kLanes<C> / 2>
inline void transpose(Vector<C>* rows) {
#pragma GCC unroll 16
  for (int r = 0; r < kLanes<C>; ++r) {
    if (!(r & step)) exchange<C, step>(rows[r], rows[r + step], std::make_index_sequence<kLanes<C>>{});
  }
  if constexpr (step > 1) transpose<C, step / 2>(rows);
}

}  // namespace itrd::ITRD_ISA
