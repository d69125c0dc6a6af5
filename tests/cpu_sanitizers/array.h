// Arrays of any of the kernels' types, each in an allocation of its own.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "../naive.h"
#include "cpu/interface.h"

namespace itrd {

// Half precision as 1 sign, an exponent and `digits` of the fraction.
struct Format {
  int digits, bias;
};
inline Format format(Dtype dtype) { return dtype == Dtype::float16 ? Format{10, 15} : Format{7, 127}; }

inline std::size_t size_of(Dtype dtype) { return dtype == Dtype::float64 ? 8 : dtype == Dtype::float32 ? 4 : 2; }
inline Dtype wide(Dtype dtype) { return dtype == Dtype::float64 ? dtype : Dtype::float32; }

inline void put(Dtype dtype, void* to, std::size_t i, double x) {
  if (dtype == Dtype::float64) static_cast<double*>(to)[i] = x;
  if (dtype == Dtype::float32) static_cast<float*>(to)[i] = float(x);
  if (size_of(dtype) > 2) return;
  const auto [digits, bias] = format(dtype);
  int exponent = 0;
  std::frexp(x, &exponent);
  exponent = std::max(exponent, 2 - bias);
  const auto fraction = int(std::nearbyint(std::ldexp(std::fabs(x), digits + 1 - exponent)));
  static_cast<uint16_t*>(to)[i] = uint16_t(std::signbit(x) << 15 | (((exponent + bias - 2) << digits) + fraction));
}

inline double at(Dtype dtype, const void* from, std::size_t i) {
  if (dtype == Dtype::float64) return static_cast<const double*>(from)[i];
  if (dtype == Dtype::float32) return static_cast<const float*>(from)[i];
  const auto [digits, bias] = format(dtype);
  const int bits = static_cast<const uint16_t*>(from)[i], exponent = (bits & 0x7fff) >> digits;
  if (exponent == 2 * bias + 1) return NAN;
  const int whole = exponent ? 1 << digits : 0, fraction = bits & ((1 << digits) - 1);
  return std::copysign(std::ldexp(whole + fraction, std::max(exponent, 1) - bias - digits), bits >> 15 ? -1.0 : 1.0);
}

// A matrix whose last element ends its allocation; without rows: none.
struct Array {
  Dtype dtype;
  Matrix matrix;
  std::size_t bytes = 0;
  std::unique_ptr<void, void (*)(void*)> memory{nullptr, std::free};

  Array(Dtype dtype, int64_t rows, int64_t columns, int64_t padding = 0) : dtype(dtype) {
    if (rows == 0) return;
    bytes = std::size_t(padding + (rows - 1) * (columns + padding) + columns) * size_of(dtype);
    void* data = nullptr;
    if (posix_memalign(&data, 64, bytes)) std::abort();
    std::memset(data, 0xff, bytes);
    memory.reset(data);
    matrix = {static_cast<char*>(data) + std::size_t(padding) * size_of(dtype), rows, columns, columns + padding};
  }
  std::size_t index(int64_t i, int64_t j) const { return std::size_t(i * matrix.stride + j); }
  double operator()(int64_t i, int64_t j) const { return at(dtype, matrix.data, index(i, j)); }
  naive::Numbers exact() const {
    naive::Numbers all;
    for (int64_t i = 0; i < matrix.rows; ++i)
      for (int64_t j = 0; j < matrix.columns; ++j) all.push_back((*this)(i, j));
    return all;
  }
  bool operator==(const Array& other) const {
    return bytes == other.bytes && (bytes == 0 || std::memcmp(memory.get(), other.memory.get(), bytes) == 0);
  }
};

}  // namespace itrd
