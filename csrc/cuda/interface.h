// What the launchers of the CUDA kernels take and where they put it: plain data, no torch.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "../matrix.h"
#include "../moments.h"

namespace itrd {

// "wide" below is float64 for float64 inputs, else float32.
struct ForwardProblem {
  Dtype dtype;
  int n;
  Matrix e, t, s;  // z_e and z_t of the correlation term; z_s (or z_e) and z_t of the Gram term
  double alpha, beta_corr, beta_mi;
  bool log, tf32;
  int capability = 80;  // 10 · major + minor of the device
  // Tests force the Gram kernels' tile (32, 64, 128) and how many rows of W are formed at a time; 0 chooses by n and d.
  int tile = 0, panel = 0;
  // Wide scalars, moments (8, d_t), and the gradients of the Gram term or null where they are not wanted.
  void *total, *correlation, *mutual_information, *moments, *dgram_s, *dgram_t;
};

struct BackwardProblem {
  Dtype dtype;
  int n;
  Matrix e, t;                                                 // read by the correlation term
  const void *g_total, *g_correlation, *g_mutual_information;  // wide scalars on the device; null is zero
  double beta_corr, beta_mi;
  const void *moments, *dgram_s, *dgram_t;
  // Contiguous gradients (n, width), null where not wanted; `gram_on_e` when the Gram term read z_e.
  void *grad_e, *grad_t, *grad_s;
  int width_e, width_t, width_s;
  bool gram_on_e;
};

// Scratch memory of a forward pass, one pointer per purpose, each aligned to 256 bytes and not initialised.
struct Workspace {
  void* ticket;        // counts finished blocks
  void* partials;      // correlation: moments (chunks, 7, d)
  void* norms;         // Gram: 1/‖z‖ and range scale of student rows and of teacher rows (4, ld)
  void* counts;        // Gram: non-zero rows per block (blocks, 2)
  void* losses;        // Gram: loss sums per tile (tiles, 2)
  void* coefficients;  // Gram: c_s and c_st of the log form, whether any row is range-scaled (3)
  void* weights_s;     // Gram: W_ij/‖z_j‖ of a panel of rows (rows, ld), in whole tiles
  void* weights_t;
  void* partial_projection_s;  // Gram: Σ_j W_ij G_ij per tile of columns (tiles, rows)
  void* partial_projection_t;
};

struct WorkspaceBytes {
  size_t ticket, partials, norms, counts, losses, coefficients, weights_s, weights_t, partial_projection_s,
      partial_projection_t;
};

WorkspaceBytes workspace_bytes(const ForwardProblem& problem);
void forward(const ForwardProblem& problem, const Workspace& workspace, cudaStream_t stream);
void backward(const BackwardProblem& problem, cudaStream_t stream);

}  // namespace itrd
