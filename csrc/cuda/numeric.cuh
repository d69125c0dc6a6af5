// Element types, matrices as the kernels see them, and which sizes of numbers are extreme.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math.h>

#include <cstdint>

namespace itrd {

constexpr int kWarp = 32;  // threads that run in step
template <class A>
constexpr A kLn2 = A(0.69314718055994530942);

// The type that elements of type T are summed in: float64 for float64, else float32.
template <class T>
struct Wide {
  using type = float;
};
template <>
struct Wide<double> {
  using type = double;
};
template <class T>
using wide_t = typename Wide<T>::type;

// Whether numbers of this type are float64, and log x of them; for the losses of pairs, which do not know CUDA's names.
template <class A>
constexpr bool kIsDouble = sizeof(A) == 8;
__device__ inline float log_of(float x) { return logf(x); }
__device__ inline double log_of(double x) { return log(x); }

__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline float widen(__half x) { return __half2float(x); }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ inline T narrow(wide_t<T> x) {
  return x;
}
template <>
__device__ inline __half narrow<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ inline __nv_bfloat16 narrow<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// Two neighbouring elements of a row, read or written in one access.
template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T first, second;
};

// A row-major matrix of features (n, width) whose rows are `stride` elements apart; null where it is not read.
template <class T>
struct View {
  const T* data;
  int64_t stride;
  int width;
  // Whether every row may be read in vectors of 4 elements (four), and in vectors of 16 bytes (sixteen).
  bool four, sixteen;

  __device__ const T* row(int64_t i) const { return data + i * stride; }
};

// Whether numbers of this size can be squared and summed in A without overflow, and without the loss of any that
// matters. A row or a column whose size is neither ordinary nor zero is called extreme.
template <class A>
__device__ inline bool is_ordinary(A size) {
  constexpr A kLimit = sizeof(A) == 8 ? A(0x1p400) : A(0x1p40);
  return size >= 1 / kLimit && size <= kLimit;
}

// A power of two that brings `size` to order one.
template <class A>
__device__ inline A power_to_one(A size) {
  int exponent;
  frexp(size, &exponent);
  int limit = sizeof(A) == 8 ? 1020 : 124;
  exponent = exponent > limit ? limit : exponent < -limit ? -limit : exponent;
  return ldexp(A(1), -exponent);
}

}  // namespace itrd
