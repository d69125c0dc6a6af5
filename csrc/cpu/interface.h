// What ops.cpp and the kernels of every instruction set agree on. Free of torch.
#pragma once

#include <cstdint>

#include "matrix.h"
#include "moments.h"

namespace itrd {

struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// Run body(thread) for thread = 0 … threads − 1, each once; in ops.cpp.
void run_parallel(int threads, void (*body)(void* context, int thread), void* context);
int max_threads();

template <class F>
void parallel(int threads, F&& body) {
  if (threads <= 1) return body(0);
  run_parallel(threads, [](void* context, int thread) { (*static_cast<F*>(context))(thread); }, &body);
}

// The part of 0 … count − 1 that belongs to a thread.
struct Range {
  int64_t begin, end;
  Range(int64_t count, int thread, int threads)
      : begin(count * thread / threads), end(count * (thread + 1) / threads) {}
};

struct GramProblem {
  Matrix s, t;            // features (n, d_s), (n, d_t)
  Matrix grad_s, grad_t;  // ∂L_mi/∂s and ∂L_mi/∂t in float32 or float64; without data: not wanted
  bool log;               // Eq. 9 with its logarithms
};

struct BackwardProblem {
  Matrix e, t;                       // inputs of the correlation loss
  const void* moments;               // null: no correlation term
  double g_correlation, g_gram;      // upstream gradients, weights applied
  Matrix grad_e, grad_t, grad_s;     // results; without data: not wanted
  Matrix dgram_e, dgram_t, dgram_s;  // ∂L_mi; without data: none
};

// The kernels of one instruction set.
struct Kernels {
  double (*correlation_forward)(Dtype, const Matrix& s, const Matrix& t, double alpha, void* moments);
  double (*gram_forward)(Dtype, const GramProblem&);
  void (*backward)(Dtype, const BackwardProblem&);
};

namespace amx {
bool available();
const Kernels& kernels();
}  // namespace amx
namespace avx512_bf16 {
const Kernels& kernels();
}
namespace avx512 {
const Kernels& kernels();
}
namespace avx2 {
const Kernels& kernels();
}
namespace portable {
const Kernels& kernels();
}

}  // namespace itrd
