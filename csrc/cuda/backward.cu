// The backward pass, one launch: the gradients of both terms, scaled by what reaches the losses from above, and added.
#include <algorithm>

#include "launch.cuh"
#include "streaming.cuh"

namespace itrd {

constexpr int kGradientRows = 32;  // of a block, so that the moments of its columns are read once for many rows

// One gradient; or both gradients of a pair, which share the features that the correlation term reads.
template <class T>
struct GradientTask {
  using A = wide_t<T>;
  View<T> s, t;                // (n, width) the features of a pair; null otherwise
  const A *dgram_s, *dgram_t;  // (n, width) ∂L_mi/∂z; null is zero
  T *grad_s, *grad_t;          // (n, width) the results; null where not wanted
  bool pair;                   // whether the correlation term takes part
  int width;
};

// All gradients of one launch.
template <class T>
struct Gradients {
  using A = wide_t<T>;
  GradientTask<T> task[3];  // the grid's z says which
  int n;
  const A *g_total, *g_correlation, *g_mutual_information;  // scalars; null is zero
  A beta_corr, beta_mi;
  const A* moments;  // (8, width of a pair), row by row as `enum Moment` says
};

// Writes the gradients of one block's rows, and of its strip of columns.
template <class T>
__device__ void gradient_task(const Gradients<T>& g, const GradientTask<T>& task) {
  using A = wide_t<T>;
  Columns<A> columns(blockIdx.x, task.width, task.width % 4 == 0 && (!task.pair || (task.s.four && task.t.four)));
  // What reaches a term from above: its own upstream gradient, and its share of the total's.
  auto upstream = [&](const A* own, A beta) { return (g.g_total ? *g.g_total * beta : 0) + (own ? *own : 0); };
  A g_corr = upstream(g.g_correlation, g.beta_corr), g_mi = upstream(g.g_mutual_information, g.beta_mi);

  A mean_s[4], low_s[4], rstd_s[4], mean_t[4], low_t[4], rstd_t[4], a[4], b[4];
  if (task.pair) {
    auto load = [&](int row, A(&x)[4]) { columns.load(g.moments + int64_t(row) * task.width, x); };
    load(kMeanS, mean_s);
    load(kMeanLowS, low_s);
    load(kRstdS, rstd_s);
    load(kMeanT, mean_t);
    load(kMeanLowT, low_t);
    load(kRstdT, rstd_t);
    load(kA, a);
    load(kB, b);
  }
  int end = min(int(blockIdx.y + 1) * kGradientRows, g.n);
#pragma unroll 2
  for (int row = blockIdx.y * kGradientRows + threadIdx.x / kWarp; row < end; row += kStreamWarps) {
    A s[4] = {}, t[4] = {}, grad_s[4] = {}, grad_t[4] = {};
    if (task.pair) {
      columns.load(task.s.row(row), s);
      columns.load(task.t.row(row), t);
    }
    int64_t at = int64_t(row) * task.width;
    if (task.dgram_s && task.grad_s) columns.load(task.dgram_s + at, grad_s);
    if (task.dgram_t && task.grad_t) columns.load(task.dgram_t + at, grad_t);
#pragma unroll
    for (int q = 0; q < 4; ++q) {
      grad_s[q] = task.dgram_s ? grad_s[q] * g_mi : 0;
      grad_t[q] = task.dgram_t ? grad_t[q] * g_mi : 0;
      if (task.pair) {
        // ∂L/∂s_ij = (1/σ_s) (a t̂_ij − b ŝ_ij); for the teacher s and t change places.
        A x = (s[q] - mean_s[q] - low_s[q]) * rstd_s[q], y = (t[q] - mean_t[q] - low_t[q]) * rstd_t[q];
        grad_s[q] += g_corr * rstd_s[q] * (a[q] * y - b[q] * x);
        grad_t[q] += g_corr * rstd_t[q] * (a[q] * x - b[q] * y);
      }
    }
    if (task.grad_s) columns.store(task.grad_s + at, grad_s);
    if (task.grad_t) columns.store(task.grad_t + at, grad_t);
  }
}

template <class T>
__global__ void __launch_bounds__(kStreamThreads, kStreamBlocks) gradients(const __grid_constant__ Gradients<T> g) {
  gradient_task(g, g.task[blockIdx.z]);
}

template <class T>
void launch_backward(const BackwardProblem& p, cudaStream_t stream) {
  using A = wide_t<T>;
  Gradients<T> g = {};
  g.n = p.n;
  g.g_total = static_cast<const A*>(p.g_total);
  g.g_correlation = static_cast<const A*>(p.g_correlation);
  g.g_mutual_information = static_cast<const A*>(p.g_mutual_information);
  g.beta_corr = A(p.beta_corr);
  g.beta_mi = A(p.beta_mi);
  g.moments = static_cast<const A*>(p.moments);
  const A *dgram_s = static_cast<const A*>(p.dgram_s), *dgram_t = static_cast<const A*>(p.dgram_t);
  const A* dgram_e = p.gram_on_e ? dgram_s : nullptr;
  auto *grad_e = static_cast<T*>(p.grad_e), *grad_t = static_cast<T*>(p.grad_t), *grad_s = static_cast<T*>(p.grad_s);
  int tasks = 0, width = 0;
  auto add = [&](const GradientTask<T>& task) {
    if (!task.grad_s && !task.grad_t) return;
    g.task[tasks++] = task;
    width = std::max(width, task.width);
  };
  if (p.beta_corr != 0) {
    add({view<T>(p.e), view<T>(p.t), dgram_e, dgram_t, grad_e, grad_t, true, p.width_t});
  } else {
    add({{}, {}, dgram_e, nullptr, grad_e, nullptr, false, p.width_e});
    add({{}, {}, nullptr, dgram_t, nullptr, grad_t, false, p.width_t});
  }
  add({{}, {}, dgram_s, nullptr, grad_s, nullptr, false, p.width_s});
  if (tasks == 0) return;
  dim3 grid((width + kStripColumns - 1) / kStripColumns, (p.n + kGradientRows - 1) / kGradientRows, tasks);
  launch(gradients<T>, grid, kStreamThreads, 0, stream, g);
}

void backward(const BackwardProblem& problem, cudaStream_t stream) {
  with_type(problem.dtype, [&](auto type) { launch_backward<decltype(type)>(problem, stream); });
}

}  // namespace itrd
