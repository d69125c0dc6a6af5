// The forward pass: which launches it takes, and on which parts of the workspace.
#include <algorithm>

#include "gram_plan.cuh"

namespace itrd {

namespace {

constexpr int kRowsPerChunk = 64, kMaxChunks = 128;

// How the problem is cut up.
struct Plan {
  bool correlation, mutual_information;  // which terms have a weight
  bool want_s, want_t;                   // which gradients of the Gram term are wanted
  int64_t wide;                          // bytes of a wide number
  // The correlation term's strips of columns and chunks of rows; the blocks that count rows for the Gram term.
  int64_t strips, chunks, chunk_rows, count_blocks;
  // Tiles to a side of G; elements of a row of W; rows of a panel of W; rows of Gram::losses.
  int64_t tiles, ld, rows, losses;
  TilePlan tile, gradient_tile;
  bool loss_first;  // whether the loss has a launch of its own, since W cannot follow in the same one

  explicit Plan(const ForwardProblem& p)
      : correlation(p.beta_corr != 0),
        mutual_information(p.beta_mi != 0),
        want_s(mutual_information && p.dgram_s),
        want_t(mutual_information && p.dgram_t),
        wide(p.dtype == Dtype::float64 ? 8 : 4),
        loss_first(p.log || !(want_s || want_t)) {
    strips = ceil_div(p.t.columns, kStripColumns);
    chunk_rows = std::max<int64_t>(kRowsPerChunk, ceil_div(p.n, kMaxChunks));
    chunks = ceil_div(p.n, chunk_rows);
    count_blocks = blocks_that_count(p.n);

    bool tensor = on_tensor_cores(p.dtype, p.capability, p.tf32);
    int64_t squares = ceil_div(p.n, 32);
    tile = plan_tiles(p.dtype, p.capability, tensor, squares * (squares + 1) / 2, p.tile);
    gradient_tile = plan_tiles(p.dtype, p.capability, tensor && p.capability >= 80,
                               squares * ceil_div(std::max(p.s.columns, p.t.columns), 32), p.tile);
    tiles = ceil_div(p.n, tile.tile);
    int64_t whole = std::max(tile.tile, gradient_tile.tile);
    ld = ceil_div(p.n, whole) * whole;

    // A panel has as many rows of W as the workspace holds beside the rest.
    int64_t sides = want_s + want_t, row_bytes = std::max<int64_t>(sides, 1) * (ld + tiles) * wide;
    int64_t budget = kWorkspaceBytes + 32 * int64_t(p.n) * std::min(p.s.columns, p.t.columns);
    int64_t rest = (4 * ld + 2 * tiles * tiles + chunks * kPartials * p.t.columns) * wide + kSmallParts;
    rows = sides == 0 ? ld : panel_rows(ld, ld, whole, row_bytes, budget - rest, p.panel);
    losses = rows == ld ? tiles * (tiles + 1) / 2 : tiles * tiles;
  }
};

template <class T>
void run(const ForwardProblem& p, const Workspace& w, cudaStream_t stream) {
  using A = wide_t<T>;
  Plan plan(p);
  Correlation<T> c = {};
  if (plan.correlation) {
    c.s = view<T>(p.e);
    c.t = view<T>(p.t);
    c.n = p.n;
    c.d = int(p.t.columns);
    c.strips = int(plan.strips);
    c.chunks = int(plan.chunks);
    c.chunk_rows = int(plan.chunk_rows);
    c.partials = static_cast<A*>(w.partials);
    c.moments = static_cast<A*>(p.moments);
    c.alpha = A(p.alpha);
  }
  Gram<T> g = {};
  if (plan.mutual_information) {
    g.s.own = g.s.columns = rows_of<T>(p.s, w.norms, plan.ld, 0);
    g.t.own = g.t.columns = rows_of<T>(p.t, w.norms, plan.ld, 2);
    g.s.gradient = static_cast<A*>(p.dgram_s);
    g.t.gradient = static_cast<A*>(p.dgram_t);
    g.n = g.columns = p.n;
    g.tiles = int(plan.tiles);
    g.counts = static_cast<int*>(w.counts);
    g.count_blocks = int(plan.count_blocks);
    g.losses = static_cast<A*>(w.losses);
    g.coefficients = static_cast<A*>(w.coefficients);
    g.ld = int(plan.ld);
    g.rows = int(plan.rows);
    g.triangular = true;
  }
  Finish<T> finish = {static_cast<unsigned*>(w.ticket),
                      plan.correlation,
                      plan.mutual_information,
                      A(p.beta_corr),
                      A(p.beta_mi),
                      static_cast<A*>(p.total),
                      static_cast<A*>(p.correlation),
                      static_cast<A*>(p.mutual_information),
                      0};
  launch_statistics(c, g, finish, stream);
  if (!plan.mutual_information) return launch_correlation(c, finish, stream);
  if (plan.loss_first) {
    g.pass = p.log ? GramPass::log_sums : GramPass::linear;
    launch_gram_tiles(plan.tile, g, c, finish, stream);
    if (!plan.want_s && !plan.want_t) return;
    g.pass = GramPass::log_weights;
    finish.ticket = nullptr;
  }
  if (plan.want_s) {
    g.s.weights = static_cast<A*>(w.weights_s);
    g.s.partial_projection = static_cast<A*>(w.partial_projection_s);
  }
  if (plan.want_t) {
    g.t.weights = static_cast<A*>(w.weights_t);
    g.t.partial_projection = static_cast<A*>(w.partial_projection_t);
  }
  g.triangular = plan.rows == plan.ld;
  // Where W comes in several panels, the last of them finishes the losses.
  unsigned* ticket = finish.ticket;
  for (int64_t row0 = 0; row0 < p.n; row0 += plan.rows) {
    g.row0 = int(row0);
    g.first_loss = int(row0 / plan.tile.tile * plan.tiles);
    finish.ticket = row0 + plan.rows >= p.n ? ticket : nullptr;
    launch_gram_tiles(plan.tile, g, c, finish, stream);
    launch_gram_gradients(plan.gradient_tile, g, stream);
  }
}

}  // namespace

WorkspaceBytes workspace_bytes(const ForwardProblem& p) {
  Plan plan(p);
  WorkspaceBytes bytes = {};
  bytes.ticket = sizeof(unsigned);
  if (plan.correlation) bytes.partials = plan.chunks * kPartials * p.t.columns * plan.wide;
  if (!plan.mutual_information) return bytes;
  bytes.norms = 4 * plan.ld * plan.wide;
  bytes.counts = plan.count_blocks * kRowCounts * sizeof(int);
  bytes.losses = 2 * plan.losses * plan.wide;
  bytes.coefficients = 2 * plan.wide;
  size_t weights = plan.rows * plan.ld * plan.wide, partial_projection = plan.tiles * plan.rows * plan.wide;
  if (plan.want_s) bytes.weights_s = weights, bytes.partial_projection_s = partial_projection;
  if (plan.want_t) bytes.weights_t = weights, bytes.partial_projection_t = partial_projection;
  return bytes;
}

void forward(const ForwardProblem& problem, const Workspace& workspace, cudaStream_t stream) {
  with_type(problem.dtype, [&](auto type) { run<decltype(type)>(problem, workspace, stream); });
}

}  // namespace itrd
