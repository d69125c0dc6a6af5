// A sweep over pairs of rows: which launches it takes, and on which parts of the workspace.
#include "gram_plan.cuh"
#include "pairs.cuh"

namespace itrd {

namespace {

// How the problem is cut up.
struct Plan {
  bool want_s, want_t, want_rows;  // the gradients and the row sums
  int64_t wide;                    // bytes of a wide number
  int64_t column_blocks, own_blocks;
  // Own rows in whole tiles; elements of a row of W, tiles to it; rows of a panel of W; rows of Gram::losses.
  int64_t height, ld, tiles, rows, losses;
  TilePlan gradient_tile;
  bool tensor, triangular;

  explicit Plan(const PairProblem& p)
      : want_s(p.dgram_s), want_t(p.dgram_t), want_rows(p.row_sums), wide(p.dtype == Dtype::float64 ? 8 : 4) {
    int64_t n = p.s.rows, m = p.other_s.rows, tile = p.dtype == Dtype::float64 ? kPairTile<double> : kPairTile<float>;
    column_blocks = blocks_that_count(m);
    own_blocks = p.rectangle ? blocks_that_count(n) : 0;
    tensor = on_tensor_cores(p.dtype, p.capability, p.tf32);
    gradient_tile = plan_tiles(p.dtype, p.capability, tensor && p.capability >= 80,
                               ceil_div(n, 32) * ceil_div(std::max(p.s.columns, p.t.columns), 32), p.tile);
    int64_t whole = std::max<int64_t>(tile, gradient_tile.tile);
    height = ceil_div(n, whole) * whole;
    ld = ceil_div(m, whole) * whole;
    tiles = ceil_div(m, tile);

    // A panel has as many rows of W as the workspace holds beside the rest.
    int64_t sides = want_s + want_t, row_tiles = height / tile;
    int64_t row_bytes = std::max<int64_t>(sides * (ld + tiles) + 2 * want_rows * tiles, 1) * wide;
    int64_t budget = kWorkspaceBytes + 32 * std::max(n, m) * std::min(p.s.columns, p.t.columns);
    int64_t rest = (6 * (ld + height) + 2 * tiles * row_tiles) * wide + kSmallParts;
    rows = sides == 0 ? height : panel_rows(height, ld, whole, row_bytes, budget - rest, p.panel);
    triangular = !p.rectangle && rows == height;
    losses = triangular ? tiles * (tiles + 1) / 2 : ceil_div(n, tile) * tiles;
  }
};

template <class T>
RowMarks<wide_t<T>> marks(const bool* keep, const Matrix& given, void* statistics, int64_t n, int64_t padded,
                          bool counted) {
  using A = wide_t<T>;
  return {keep,   static_cast<const A*>(given.data), given.stride, static_cast<A*>(statistics), int(n), int(padded),
          counted};
}

template <class T>
void run(const PairProblem& p, const Workspace& w, cudaStream_t stream) {
  using A = wide_t<T>;
  Plan plan(p);
  int64_t n = p.s.rows, m = p.other_s.rows;
  Pairs<T> pairs = {};
  Gram<T>& g = pairs.gram;
  g.s.columns = rows_of<T>(p.other_s, w.norms, plan.ld, 0);
  g.t.columns = rows_of<T>(p.other_t, w.norms, plan.ld, 2);
  pairs.columns = marks<T>(p.other_keep, p.other_statistics, w.statistics, m, plan.ld, true);
  g.s.own = g.s.columns;
  g.t.own = g.t.columns;
  pairs.own = pairs.columns;
  if (p.rectangle) {
    void* norms = static_cast<A*>(w.norms) + 4 * plan.ld;
    g.s.own = rows_of<T>(p.s, norms, plan.height, 0);
    g.t.own = rows_of<T>(p.t, norms, plan.height, 2);
    pairs.own = marks<T>(p.keep, p.statistics, static_cast<A*>(w.statistics) + 2 * plan.ld, n, plan.height, false);
  }
  g.s.gradient = static_cast<A*>(p.dgram_s);
  g.t.gradient = static_cast<A*>(p.dgram_t);
  g.n = int(n);
  g.columns = int(m);
  g.tiles = int(plan.tiles);
  g.counts = static_cast<int*>(w.counts);
  g.count_blocks = int(plan.column_blocks + plan.own_blocks);
  g.losses = static_cast<A*>(w.losses);
  g.ld = int(plan.ld);
  g.rows = int(plan.rows);
  g.triangular = plan.triangular;
  if (plan.want_s) {
    g.s.weights = static_cast<A*>(w.weights_s);
    g.s.partial_projection = static_cast<A*>(w.partial_projection_s);
  }
  if (plan.want_t) {
    g.t.weights = static_cast<A*>(w.weights_t);
    g.t.partial_projection = static_cast<A*>(w.partial_projection_t);
  }
  pairs.column_blocks = int(plan.column_blocks);
  pairs.offset = p.offset;
  pairs.kind = p.kind;
  pairs.one_sided = kPairLosses[int(p.kind)].one_sided;
  for (int k = 0; k < kMostParameters; ++k) pairs.parameters[k] = A(p.parameters[k]);
  pairs.coefficients = static_cast<const A*>(p.coefficients);
  pairs.row_sums = static_cast<A*>(p.row_sums);
  if (plan.want_rows) {
    pairs.partial_row_sums_s = static_cast<A*>(w.partial_row_sums);
    pairs.partial_row_sums_t = pairs.partial_row_sums_s + plan.tiles * plan.rows;
  }
  pairs.slots = int(plan.losses);

  launch_pair_rows(pairs, stream);
  for (int64_t row0 = 0; row0 < n; row0 += plan.rows) {
    g.row0 = int(row0);
    g.first_loss = int(row0 / kPairTile<T> * plan.tiles);
    launch_pair_tiles(plan.tensor, pairs, stream);
    if (plan.want_s || plan.want_t) launch_gram_gradients(plan.gradient_tile, g, stream);
    // The last panel finishes the sums.
    if (row0 + plan.rows < n) launch_pair_sums(pairs, stream);
  }
  pairs.sums = p.sums;
  launch_pair_sums(pairs, stream);
}

}  // namespace

WorkspaceBytes workspace_bytes(const PairProblem& p) {
  Plan plan(p);
  WorkspaceBytes bytes = {};
  int64_t padded = plan.ld + (p.rectangle ? plan.height : 0);
  bytes.norms = 4 * padded * plan.wide;
  bytes.statistics = 2 * padded * plan.wide;
  bytes.counts = (plan.column_blocks + plan.own_blocks) * kRowCounts * sizeof(int);
  bytes.losses = 2 * plan.losses * plan.wide;
  size_t weights = plan.rows * plan.ld * plan.wide, partial = plan.tiles * plan.rows * plan.wide;
  if (plan.want_s) bytes.weights_s = weights, bytes.partial_projection_s = partial;
  if (plan.want_t) bytes.weights_t = weights, bytes.partial_projection_t = partial;
  if (plan.want_rows) bytes.partial_row_sums = 2 * partial;
  return bytes;
}

void gram(const PairProblem& problem, const Workspace& workspace, cudaStream_t stream) {
  with_type(problem.dtype, [&](auto type) { run<decltype(type)>(problem, workspace, stream); });
}

}  // namespace itrd
