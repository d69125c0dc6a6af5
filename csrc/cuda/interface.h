// What the launchers of the CUDA kernels take and where they put it: plain data, no torch.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "../matrix.h"
#include "../moments.h"

namespace itrd {

// One call of the forward pass. "Wide" is float64 for float64 inputs, and else float32; all pointers are the device's.
struct ForwardProblem {
  Dtype dtype;
  int n;
  Matrix e, t, s;  // z_e and z_t of the correlation term; z_s (or z_e) and z_t of the Gram term
  double alpha, beta_corr, beta_mi;
  bool log, tf32;
  int capability = 80;  // 10 · major + minor of the device
  // Tests force the Gram kernels' tile (32, 64, 128) and how many rows of W are formed at a time; 0 chooses by n and d.
  int tile = 0, panel = 0;
  void *total, *correlation, *mutual_information;  // the losses, wide scalars
  void* moments;                                   // wide (8, d_t); null without the correlation term
  void *dgram_s, *dgram_t;                         // contiguous wide ∂L_mi/∂z (n, width); null where not wanted
};

// One call of the backward pass: what reaches each gradient from both terms, scaled and added.
struct BackwardProblem {
  Dtype dtype;
  int n;
  Matrix e, t;                                                 // read by the correlation term
  const void *g_total, *g_correlation, *g_mutual_information;  // wide scalars on the device; null is zero
  double beta_corr, beta_mi;
  const void *moments, *dgram_s, *dgram_t;  // as the forward pass left them; null is zero
  void *grad_e, *grad_t, *grad_s;           // contiguous gradients (n, width); null where not wanted
  int width_e, width_t, width_s;
  bool gram_on_e;  // whether the Gram term read z_e, so that dgram_s belongs to it
};

// Scratch memory of a forward pass, one pointer per purpose, each aligned to 256 bytes and not initialised; null where
// it is not needed.
struct Workspace {
  void* ticket;        // one unsigned integer, which counts finished blocks
  void* partials;      // correlation: moments (chunks, 7, d)
  void* norms;         // Gram (4, ld): 1/‖z‖ and scale of student rows, the same of teacher rows
  void* counts;        // Gram (blocks, 3): rows of each kind per block, as integers
  void* losses;        // Gram (tiles, 2): the sums of each tile
  void* coefficients;  // Gram (2): c_s and c_st of the log form
  void* weights_s;     // Gram (rows, ld): W_ij/‖z_j‖ of a panel of rows, in whole tiles
  void* weights_t;
  void* partial_projection_s;  // Gram (tiles, rows): Σ_j W_ij G_ij per tile of columns
  void* partial_projection_t;
};

// How many bytes each part of the workspace takes, in the order of Workspace.
struct WorkspaceBytes {
  size_t ticket, partials, norms, counts, losses, coefficients, weights_s, weights_t;
  size_t partial_projection_s, partial_projection_t;
};

WorkspaceBytes workspace_bytes(const ForwardProblem& problem);
void forward(const ForwardProblem& problem, const Workspace& workspace, cudaStream_t stream);
void backward(const BackwardProblem& problem, cudaStream_t stream);

}  // namespace itrd
