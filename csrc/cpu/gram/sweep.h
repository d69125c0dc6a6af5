// The course that the Gram engines share: how a loss of the pairs of rows is put together from their sweeps. An engine
// (packed.h, direct.h, amx.h) has these members:
//   problem                          what is to be computed
//   norms_s(), norms_t()             the rows of both inputs (rows.h), once the engine has prepared them
//   sweep(gradient, coefficients)    sums over the pairs of different rows and, with `gradient`, the gradients
// Two of them form W block by block, and leave that to `sweep_blocks`.
#pragma once

#include <vector>

#include "cpu/gram/mutual_information.h"
#include "cpu/gram/rows.h"
#include "cpu/gram/schedule.h"

namespace itrd::ITRD_ISA {

// How much work, n² (d_s + d_t), is worth starting threads for, and AMX.
constexpr double kWorthThreads = 1e6, kWorthAmx = 4e6;

inline double work(const GramProblem& p) { return 1.0 * p.s.rows * p.s.rows * (p.s.columns + p.t.columns); }
inline int threads_for(const GramProblem& p) { return work(p) >= kWorthThreads ? max_threads() : 1; }

// What an engine that forms W block by block plans with.
struct GramPlan {
  const GramProblem& problem;
  const Schedule schedule;
  const Panels& panels = schedule.rows;
  const int threads;

  explicit GramPlan(const GramProblem& problem)
      : problem(problem), schedule(problem.s.rows), threads(threads_for(problem)) {}
};

// Every block of the upper triangle of W: its sums and, with `gradient`, its part of Wẑ.
template <class Engine>
Sums sweep_blocks(Engine& engine, bool gradient, Coefficients c) {
  Sums total;
  engine.schedule.each_block([&](const Block& block) {
    const std::vector<PanelPair> pairs = pairs_of(block, Engine::kGroupSide);
    std::vector<Sums> partial(pairs.size());
    parallel(engine.threads, [&](int thread) {
      const Range range(pairs.size(), thread, engine.threads);
      engine.form_weights(block, pairs, range, gradient, c, partial, thread);
    });
    // In this order whatever the number of threads.
    for (const Sums& sums : partial) total.s += sums.s, total.st += sums.st;
    if (gradient) engine.multiply_weights(block);
  });
  return total;
}

// The loss. Where gradients are wanted, the engine, which has prepared its inputs, leaves them in problem.dgram_s and
// problem.dgram_t.
template <class Engine>
double run_gram(Engine& engine) {
  const GramProblem& problem = engine.problem;
  Traces m;
  for (int64_t i = 0; i < problem.s.rows; ++i) {
    m.s += engine.norms_s().alive(i);
    m.st += engine.norms_s().alive(i) && engine.norms_t().alive(i);
  }
  const bool gradient = problem.dgram_s || problem.dgram_t;
  Coefficients c = plain_coefficients(m);
  Sums sums;
  // With logarithms the coefficients are known only after the sums, so that all pairs are formed twice.
  if (!gradient || problem.log) sums = engine.sweep(false, c);
  if (problem.log) c = log_coefficients(sums, m);
  if (gradient) sums = engine.sweep(true, c);
  return loss_of(sums, m, problem.log);
}

}  // namespace itrd::ITRD_ISA
