// The launches that a forward pass is made of, one kernel each, and what passes between them and forward.cu.
#pragma once

#include <algorithm>

#include "correlation.cuh"
#include "gram.cuh"
#include "instructions.cuh"
#include "interface.h"

namespace itrd {

// What the last block of a launch does: L_total = β_corr L_corr + β_mi L_mi, where a term without weight is NaN.
template <class T>
struct Finish {
  using A = wide_t<T>;
  unsigned* ticket;                      // counts finished blocks; null where another launch finishes
  bool correlation, mutual_information;  // which terms have a weight
  A beta_corr, beta_mi;
  A *total_out, *correlation_out, *mutual_information_out;  // scalars
  int column_blocks;  // how many of gram_tiles' blocks, the first ones, finish the columns of the correlation term

  __device__ void write(A l_corr, A l_mi) const {
    *correlation_out = correlation ? l_corr : A(NAN);
    *mutual_information_out = mutual_information ? l_mi : A(NAN);
    *total_out = (correlation ? beta_corr * l_corr : 0) + (mutual_information ? beta_mi * l_mi : 0);
  }
};

// A matrix as the kernels see it, with what its address and its strides allow.
template <class T>
View<T> view(const Matrix& m) {
  auto aligned = [&](size_t bytes) {
    return reinterpret_cast<uintptr_t>(m.data) % bytes == 0 && m.stride * sizeof(T) % bytes == 0;
  };
  return {static_cast<const T*>(m.data), m.stride, int(m.columns),
          m.columns % 4 == 0 && aligned(std::min<size_t>(4 * sizeof(T), 16)), aligned(16)};
}

// Calls run with a value of the type that `type` names.
template <class Run>
void with_type(Dtype type, Run run) {
  switch (type) {
    case Dtype::float32:
      return run(float());
    case Dtype::float64:
      return run(double());
    case Dtype::float16:
      return run(__half());
    case Dtype::bfloat16:
      return run(__nv_bfloat16());
  }
}

// Which of the kernels on Gram matrices takes a launch: tiles of 32, 64 or 128 rows, on the tensor cores or on the
// floating-point units.
struct TilePlan {
  int tile;
  bool tensor;
};

constexpr int kLargestOldTile = 64;  // before sm_80

// Writes the norms of the Gram term's rows and the moments of the correlation term's columns, each only where the term
// has a weight; clears the ticket.
template <class T>
void launch_statistics(const Correlation<T>& c, const Gram<T>& g, const Finish<T>& finish, cudaStream_t stream);

// Writes L_corr and what the backward pass needs, where there is no Gram term.
template <class T>
void launch_correlation(const Correlation<T>& c, const Finish<T>& finish, cudaStream_t stream);

// Writes a panel of W and the losses of its tiles; with a ticket also both losses, and the correlation term's columns.
template <class T>
void launch_gram_tiles(const TilePlan& plan, const Gram<T>& g, const Correlation<T>& c, const Finish<T>& finish,
                       cudaStream_t stream);

// Writes the panel's rows of the gradients that are wanted.
template <class T>
void launch_gram_gradients(const TilePlan& plan, const Gram<T>& g, cudaStream_t stream);

}  // namespace itrd
