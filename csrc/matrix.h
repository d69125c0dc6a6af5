// How both libraries hand a matrix of features or gradients to their kernels. Free of torch.
#pragma once

#include <cstdint>

namespace itrd {

enum class Dtype { float64, float32, bfloat16, float16 };

// A row-major matrix whose rows are `stride` elements apart; without data it stands for one that is not wanted.
struct Matrix {
  void* data = nullptr;
  int64_t rows = 0, columns = 0, stride = 0;
  explicit operator bool() const { return data != nullptr; }
  template <class T>
  T* row(int64_t i) const {
    return static_cast<T*>(data) + i * stride;
  }
};

}  // namespace itrd
