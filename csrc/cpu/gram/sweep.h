// What the engines of the Gram term, gram.h, gram_direct.h and gram_tiles.h, share: the loss of a pair of rows and its
// course; by macro tiles go the first and the last.
#pragma once

#include <vector>

#include "cpu/gram/rows.h"
#include "cpu/gram/schedule.h"

namespace itrd::ITRD_ISA {

struct Sums {
  double s = 0, st = 0;  // Σ G_s², Σ G_s² G_t²
};

// c_s and c_st of L = c_s Σ G_s² − c_st Σ G_s² G_t²
struct Coefficients {
  double s = 0, st = 0;
};

// The epilogue of every entry of G_s and G_t: its sums, W = G_s (c_s − c_st G_t²) and W' = −c_st G_s² G_t.
template <class V>
inline void mutual_information(V g, V h, V c_s, V c_st, V& sum_s, V& sum_st, V& w_s, V& w_t) {
  const V g2 = g * g, h2 = h * h;
  sum_s += g2;
  sum_st += g2 * h2;
  w_s = g * (c_s - c_st * h2);
  w_t = -c_st * g2 * h;
}

// Work, n² (d_s + d_t), from which on threads, and tiles, save more than they cost.
constexpr double WORTH_THREADS = 1e6, WORTH_TILES = 4e6;

inline double work(const GramProblem& p) { return 1.0 * p.s.rows * p.s.rows * (p.s.columns + p.t.columns); }
inline int threads_for(const GramProblem& p) { return work(p) >= WORTH_THREADS ? max_threads() : 1; }

// What an engine plans by.
struct GramPlan {
  const GramProblem& problem;
  const Panels panels;
  const int threads;

  explicit GramPlan(const GramProblem& problem)
      : problem(problem), panels(problem.s.rows), threads(threads_for(problem)) {}
};

// Every macro tile of the upper triangle: its sums, and with `gradient` its part of Wẑ.
template <class Engine>
Sums sweep_macros(Engine& engine, bool gradient, Coefficients c) {
  const int64_t count = engine.panels.count, side = engine.panels.side;
  Sums total;
  for (int64_t top = 0; top < count; top += side)
    for (int64_t left = top; left < count; left += side) {
      const Macro macro{top, std::min(top + side, count), left, std::min(left + side, count)};
      const std::vector<Pair> pairs = pairs_of(macro, Engine::PAIR_BLOCK);
      std::vector<Sums> partial(pairs.size());
      parallel(engine.threads, [&](int thread) {
        const Range range(pairs.size(), thread, engine.threads);
        engine.form_weights(macro, pairs, range, gradient, c, partial, thread);
      });
      // In this order whatever the number of threads.
      for (const Sums& sums : partial) total.s += sums.s, total.st += sums.st;
      if (gradient) engine.multiply_weights(macro);
    }
  return total;
}

// The loss; with gradients wanted, the engine leaves them in problem.grad_s and grad_t. It has prepared the inputs, and
// sweeps over the pairs of rows off the diagonal of G for their sums and, with `gradient`, the gradients.
template <class Engine>
double run_gram(Engine& engine) {
  const GramProblem& problem = engine.problem;
  // The traces m_s and m_st: on the diagonal G is 1 in every row that is not zero.
  double m_s = 0, m_st = 0;
  for (int64_t i = 0; i < problem.s.rows; ++i) {
    m_s += engine.norms_s().alive(i);
    m_st += engine.norms_s().alive(i) && engine.norms_t().alive(i);
  }
  const bool gradient = problem.grad_s || problem.grad_t;
  auto over_square = [](double x, double m) { return m == 0 ? 0 * x : x / (m * m); };
  Coefficients c{over_square(1, m_s), over_square(1, m_st)};
  Sums sums;
  // With logarithms the coefficients are known only after the sums, so the tiles are formed twice.
  if (!gradient || problem.log) sums = engine.sweep(false, c);
  const double ln2 = 0.6931471805599453;
  if (problem.log) {
    c.s = m_s == 0 ? 0 : 1 / (ln2 * (sums.s + m_s));
    c.st = m_st == 0 ? 0 : 1 / (ln2 * (sums.st + m_st));
  }
  if (gradient) sums = engine.sweep(true, c);
  const double potential_s = over_square(sums.s + m_s, m_s), potential_st = over_square(sums.st + m_st, m_st);
  if (!problem.log) return potential_s - potential_st;
  return (m_s == 0 ? potential_s : std::log2(potential_s)) - (m_st == 0 ? potential_st : std::log2(potential_st));
}

}  // namespace itrd::ITRD_ISA
