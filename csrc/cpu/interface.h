// What operators.cpp and the kernels of every instruction set agree on. Free of torch.
#pragma once

#include <cstdint>

#include "losses/list.h"
#include "matrix.h"
#include "moments.h"

namespace itrd {

// Numbers of 16 bits as they lie in memory.
struct BFloat16 {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

// Runs body(context, thread) for thread = 0 … threads − 1, each once, and waits for all; in operators.cpp.
void run_parallel(int threads, void (*body)(void* context, int thread), void* context);
int max_threads();  // that PyTorch grants this call

// The same for body(thread) of any type.
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

// What the forward pass of the mutual-information loss is given.
struct GramProblem {
  Matrix s, t;              // features (n, d_s), (n, d_t)
  Matrix dgram_s, dgram_t;  // to be written: ∂L_mi/∂s and ∂L_mi/∂t in float32 or float64; without data: not wanted
  bool log;                 // Eq. 9 with its logarithms
};

// What one sweep of a pair loss is given: of all pairs of the rows of s and t, or of each of them with each other row.
// "Wide" is float64 for float64 features, and else float32. Without statistics those of a row are 1, or 0 of a zero
// row; a one-sided loss, which then has no other rows, takes them from the rows, and completes its gradients.
struct PairProblem {
  Matrix s, t;                    // features (n, d_s), (n, d_t)
  Matrix other_s, other_t;        // (m, d_s), (m, d_t); without data: the pairs are of s and t alone
  int64_t offset;                 // row i of s is row i + offset of other_s
  const bool *keep, *other_keep;  // which rows count (n), (m); null: all
  PairLossKind loss;
  double parameters[kMostParameters];
  const void* coefficients;                   // wide (2); null: those of the counts, or of the parameters
  const void *statistics, *other_statistics;  // wide (2, n), (2, m); null: not given
  Matrix dgram_s, dgram_t;                    // to be written, wide; without data: not wanted
  void* row_sums;                             // to be written, wide (2, n); null: not wanted
};

// What the backward pass of both losses is given. The features and their gradients are of one type; moments and dgram_…
// are float64 for float64, else float32. Matrices of gradients that are not wanted, or that the forward pass did not
// leave, have no data.
struct BackwardProblem {
  Matrix e, t;                                 // features (n, d) of the correlation loss
  const void* moments;                         // (kMoments, d) of the forward pass; null: no correlation loss
  double g_correlation, g_mutual_information;  // ∂L/∂L_corr and ∂L/∂L_mi: upstream gradients, weights applied
  Matrix grad_e, grad_t, grad_s;               // to be written: ∂L/∂e, ∂L/∂t and, where the losses differ in it, ∂L/∂s
  Matrix dgram_e, dgram_t, dgram_s;            // ∂L_mi/∂e, ∂L_mi/∂t and ∂L_mi/∂s of the forward pass
};

// The kernels of one instruction set, and its name as ITRD_CPU_ISA has it. The forward kernels return the loss;
// correlation_forward leaves in `moments` (kMoments, d), of float64 for float64 and else of float32, what the backward
// pass needs.
struct Kernels {
  const char* name;
  double (*correlation_forward)(Dtype, const Matrix& s, const Matrix& t, double alpha, void* moments);
  double (*gram_forward)(Dtype, const GramProblem&);
  void (*gram)(Dtype, const PairProblem&, double* sums);  // {first, second, m_s, m_st}
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
