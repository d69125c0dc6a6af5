// Buffers and features of the programs that run the kernels without torch. Every buffer is an allocation of its own, of
// exactly its size and filled with NaN, so that the sanitizers and a comparison see whatever is read or written beside
// it or not written at all.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "../naive.h"
#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "interface.h"

using itrd::Dtype;
using naive::Numbers;

// A buffer of exactly `bytes`, aligned as the device's allocator does.
struct Buffer {
  std::unique_ptr<unsigned char, void (*)(void*)> memory{nullptr, std::free};
  size_t bytes;

  explicit Buffer(size_t bytes) : bytes(bytes) {
    void* p = nullptr;
    if (bytes && posix_memalign(&p, 256, bytes)) std::abort();
    memory.reset(static_cast<unsigned char*>(p));
    if (p) std::memset(p, 0xff, bytes);
  }
  void* get() const { return memory.get(); }
};

inline size_t size_of(Dtype type) { return type == Dtype::float64 ? 8 : type == Dtype::float32 ? 4 : 2; }
inline Dtype wide(Dtype type) { return type == Dtype::float64 ? type : Dtype::float32; }

inline void put(Dtype type, void* to, int64_t i, double x) {
  if (type == Dtype::float64) static_cast<double*>(to)[i] = x;
  if (type == Dtype::float32) static_cast<float*>(to)[i] = float(x);
  if (type == Dtype::float16) static_cast<__half*>(to)[i] = __float2half_rn(float(x));
  if (type == Dtype::bfloat16) static_cast<__nv_bfloat16*>(to)[i] = __float2bfloat16_rn(float(x));
}

inline double at(Dtype type, const void* from, int64_t i) {
  if (type == Dtype::float64) return static_cast<const double*>(from)[i];
  if (type == Dtype::float32) return static_cast<const float*>(from)[i];
  if (type == Dtype::float16) return __half2float(static_cast<const __half*>(from)[i]);
  return __bfloat162float(static_cast<const __nv_bfloat16*>(from)[i]);
}

struct Features {
  int n, d, stride;
  Buffer buffer;
  Numbers exact;  // what the buffer holds, without the padding

  Features(Dtype type, int n, int d, int padding, std::mt19937& random) : Features(type, n, d, padding) {
    std::normal_distribution<double> normal;
    for (int i = 0; i < n; ++i)
      for (int j = 0; j < d; ++j) set(type, i, j, normal(random) + 0.3 * j);
  }
  // Nothing but NaN.
  Features(Dtype type, int n, int d, int padding)
      : n(n),
        d(d),
        stride(d + padding),
        buffer(n ? (size_t(n - 1) * stride + d) * size_of(type) : 0),
        exact(size_t(n) * d) {}
  void set(Dtype type, int i, int j, double x) {
    put(type, buffer.get(), int64_t(i) * stride + j, x);
    exact[size_t(i) * d + j] = at(type, buffer.get(), int64_t(i) * stride + j);
  }
  itrd::Matrix matrix() const { return {buffer.get(), n, d, stride}; }
};

// A workspace, each part of which is a buffer.
struct Parts {
  std::vector<Buffer> buffers;
  itrd::Workspace workspace;

  explicit Parts(const itrd::WorkspaceBytes& bytes) {
    size_t sizes[sizeof(bytes) / sizeof(size_t)];
    std::memcpy(sizes, &bytes, sizeof(bytes));
    void* pointers[sizeof(workspace) / sizeof(void*)];
    for (size_t i = 0; i < std::size(pointers); ++i) pointers[i] = buffers.emplace_back(sizes[i]).get();
    std::memcpy(&workspace, pointers, sizeof(workspace));
  }
};
