// The launches that a forward pass is made of. Each is one kernel.
#pragma once

#include <algorithm>

#include "correlation.cuh"
#include "gram.cuh"
#include "interface.h"

namespace itrd {

// What the last block of a launch does: L_total = β_corr L_corr + β_mi L_mi, NaN for a term without weight.
template <class T>
struct Finish {
  using A = wide_t<T>;
  unsigned* ticket;  // null: nobody finishes
  bool correlation, mutual_information;
  A beta_corr, beta_mi;
  A *total_out, *correlation_out, *mutual_information_out;
  int column_blocks;

  __device__ void write(A l_corr, A l_mi) const {
    *correlation_out = correlation ? l_corr : A(NAN);
    *mutual_information_out = mutual_information ? l_mi : A(NAN);
    *total_out = (correlation ? beta_corr * l_corr : 0) + (mutual_information ? beta_mi * l_mi : 0);
  }
};

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

struct TilePlan {
  int tile;
  bool tensor;
};

// The tile for `squares` squares of 32 × 32 in all.
TilePlan plan_tiles(Dtype type, int capability, bool tensor, int64_t squares, int forced);

// Row norms of the Gram term and moments of the correlation term, each only if wanted; clears the ticket.
template <class T>
void launch_statistics(const Correlation<T>& c, const Gram<T>& g, const Finish<T>& finish, cudaStream_t stream);
template <class T>
void launch_correlation(const Correlation<T>& c, const Finish<T>& finish, cudaStream_t stream);
template <class T>
void launch_gram_tiles(const TilePlan& plan, const Gram<T>& g, const Correlation<T>& c, const Finish<T>& finish,
                       cudaStream_t stream);
template <class T>
void launch_gram_gradients(const TilePlan& plan, const Gram<T>& g, cudaStream_t stream);

}  // namespace itrd
