// What the launchers of the CUDA kernels take and where they put it: plain data, no torch.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "../losses/list.h"
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

// One call of the operator `gram`: a sweep over pairs of own rows and column rows.
struct PairProblem {
  Dtype dtype;
  Matrix s, t;                    // own rows (n, width)
  Matrix other_s, other_t;        // column rows (m, width); the own rows again without `rectangle`
  bool rectangle;                 // else each pair is formed once
  int offset;                     // own row i is column row i + offset
  const bool *keep, *other_keep;  // (n) and (m); null where every row counts
  PairLossKind kind;
  double parameters[kMostParameters];
  const void* coefficients;             // wide (2); null: from the counts
  Matrix statistics, other_statistics;  // wide (2, n) and (2, m); without data where none were given
  bool tf32;
  int capability = 80;      // as above
  int tile = 0, panel = 0;  // as above, the tile of gram_gradients alone
  double* sums;             // (4)
  void *dgram_s, *dgram_t;  // contiguous wide gradients of the own rows; null where not wanted
  void* row_sums;           // contiguous wide (2, n); null where not wanted
};

// Scratch memory of a forward pass or a sweep, one pointer per purpose, each aligned to 256 bytes and not initialised;
// null where it is not needed.
struct Workspace {
  void* ticket;        // one unsigned integer, which counts finished blocks
  void* partials;      // correlation: moments (chunks, 7, d)
  void* norms;         // Gram (4, ld): 1/‖z‖ and scale of student rows, the same of teacher rows; for each factor
  void* statistics;    // Pairs (2, ld): those of the rows of student and teacher; for each factor
  void* counts;        // Gram (blocks, 3): rows of each kind per block, as integers
  void* losses;        // Gram (tiles, 2): the sums of each tile
  void* coefficients;  // Gram (2): c_s and c_st of the log form
  void* weights_s;     // Gram (rows, ld): W_ij/‖z_j‖ of a panel of rows, in whole tiles
  void* weights_t;
  void* partial_projection_s;  // Gram (tiles, rows): Σ_j W_ij G_ij per tile of columns
  void* partial_projection_t;
  void* partial_row_sums;  // Pairs (2, tiles, rows): row sums per tile of columns, of student and teacher
};

// How many bytes each part of the workspace takes, in the order of Workspace.
struct WorkspaceBytes {
  size_t ticket, partials, norms, statistics, counts, losses, coefficients, weights_s, weights_t;
  size_t partial_projection_s, partial_projection_t, partial_row_sums;
};

WorkspaceBytes workspace_bytes(const ForwardProblem& problem);
void forward(const ForwardProblem& problem, const Workspace& workspace, cudaStream_t stream);
void backward(const BackwardProblem& problem, cudaStream_t stream);
WorkspaceBytes workspace_bytes(const PairProblem& problem);
void gram(const PairProblem& problem, const Workspace& workspace, cudaStream_t stream);

}  // namespace itrd
