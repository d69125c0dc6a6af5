// Element types, matrices, and the four columns that a thread of the streaming kernels owns.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <math.h>

#include <cstdint>

namespace itrd {

constexpr int kWarp = 32;

// Sums are kept in float32 at least.
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

// Two neighbours, as one access.
template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T first, second;
};

template <class T, int count>
struct alignas(count * sizeof(T)) Neighbours {
  T x[count];
};

// A matrix as the kernels see it.
template <class T>
struct View {
  const T* data;
  int64_t stride;
  int width;
  // Rows may be read in vectors of 4 elements (four) or of 16 bytes (sixteen).
  bool four, sixteen;

  __device__ const T* row(int64_t i) const { return data + i * stride; }
};

// The four columns of a thread within a strip of 128. Where rows may be read in vectors they are neighbours (of float64
// two and two, so that a warp always reads whole rows of sectors), else one in 32.
template <class A>
struct Columns {
  static constexpr int kNeighbours = sizeof(A) == 8 ? 2 : 4;
  int first, end;
  bool vector;

  __device__ Columns(int strip, int width, bool vector)
      : first(strip * 4 * kWarp + int(threadIdx.x % kWarp) * (vector ? kNeighbours : 1)), end(width), vector(vector) {}
  __device__ int column(int q) const {
    return first + (vector ? q / kNeighbours * kNeighbours * kWarp + q % kNeighbours : q * kWarp);
  }
  __device__ bool valid(int q) const { return column(q) < end; }

  template <class T>
  __device__ void load(const T* row, A (&x)[4]) const {
    if (vector) {
#pragma unroll
      for (int q = 0; q < 4; q += kNeighbours) {
        Neighbours<T, kNeighbours> several = {};
        if (valid(q)) several = *reinterpret_cast<const Neighbours<T, kNeighbours>*>(row + column(q));
#pragma unroll
        for (int i = 0; i < kNeighbours; ++i) x[q + i] = widen(several.x[i]);
      }
    } else {
#pragma unroll
      for (int q = 0; q < 4; ++q) x[q] = valid(q) ? widen(row[column(q)]) : 0;
    }
  }

  template <class T>
  __device__ void store(T* row, const A (&x)[4]) const {
    if (vector) {
#pragma unroll
      for (int q = 0; q < 4; q += kNeighbours) {
        Neighbours<T, kNeighbours> several;
#pragma unroll
        for (int i = 0; i < kNeighbours; ++i) several.x[i] = narrow<T>(x[q + i]);
        if (valid(q)) *reinterpret_cast<Neighbours<T, kNeighbours>*>(row + column(q)) = several;
      }
    } else {
#pragma unroll
      for (int q = 0; q < 4; ++q)
        if (valid(q)) row[column(q)] = narrow<T>(x[q]);
    }
  }
};

// Numbers of this size can be squared and summed in A without overflow, and nothing that matters vanishes.
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
