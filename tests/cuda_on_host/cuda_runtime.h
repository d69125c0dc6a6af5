// Stands in for CUDA's own header: the names of the runtime and of the language that the kernels use.
#pragma once

#include <math.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "emulation.h"

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)

#define threadIdx (emulation::Index{unsigned(emulation::machine().current->index), 0, 0})
#define blockIdx (emulation::machine().block_index)
#define blockDim (emulation::machine().block)
#define gridDim (emulation::machine().grid)

using std::max;
using std::min;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

using cudaStream_t = void*;
using cudaError_t = int;
constexpr cudaError_t cudaSuccess = 0;
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }

inline void __syncthreads() { emulation::block_barrier(); }
inline void __syncwarp() {
  char nothing = 0;
  emulation::warp_instruction<char>(nothing, [](char* const*) {});
}

// Order with respect to all other threads that pass a fence.
inline void __threadfence() {
  emulation::acquire(&emulation::machine().fence);
  emulation::release(&emulation::machine().fence);
}

inline unsigned atomicAdd(unsigned* p, unsigned x) {
  return std::atomic_ref<unsigned>(*p).fetch_add(x, std::memory_order_relaxed);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  struct Arguments {
    T in, out;
    int bits;
  } arguments = {value, value, bits};
  if (mask != 0xffffffffu) emulation::fail("a shuffle leaves lanes out");
  emulation::warp_instruction<Arguments>(arguments, [](Arguments* const* lanes) {
    for (int lane = 0; lane < emulation::kLanes; ++lane) lanes[lane]->out = lanes[lane ^ lanes[lane]->bits]->in;
  });
  return arguments.out;
}

inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}
inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
