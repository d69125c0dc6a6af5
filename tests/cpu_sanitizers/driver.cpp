// The CPU kernels without torch, for the sanitizers: threads of std::thread, every input and result in an allocation of
// its own, of exactly its size and filled with NaN, and the formulas in float64 to compare with.
//
//   driver SET [DTYPE]    the kernels of one instruction set; exit status 1 if any case is wrong
#include <cstdio>
#include <random>
#include <string>

#include "../std_threads.h"
#include "array.h"
#include "cpu/buffer.h"

#ifndef ITRD_SETS
#define ITRD_SETS X(portable) X(avx2) X(avx512) X(avx512_bf16) X(amx)
#endif

namespace {

using namespace itrd;
using naive::Numbers;

enum class Kind { plain, dead_columns, zero_rows, far_columns, far_rows, views };

struct Case {
  const char* name;
  int n, d_s, d_t;     // d_s = 0: the Gram engine reads z_e
  const char* wanted;  // whose gradients: e, t, s
  Kind kind = Kind::plain;
  bool log = false;
  double beta_corr = 2, beta_mi = 1;
  int padding = 0;     // elements beside each row, and before the first
  bool large = false;  // in float32 alone, and once

  bool wants(char z) const { return std::strchr(wanted, z) != nullptr; }
};

constexpr double kAlpha = 1.5, kUpstream = -96;  // beyond the range where numbers of float16 have few digits
constexpr int kThreads = 3;

// Features; `which` input tells where the hard ones are hard.
Array features(const Case& c, Dtype dtype, int d, int which) {
  Array z(dtype, c.n, d, c.padding);
  std::mt19937 random(unsigned(which) + 1), common(7);
  std::normal_distribution<double> normal;
  const double far = dtype == Dtype::float16 ? 0x1p6 : 0x1p60;
  for (int i = 0; i < c.n; ++i)
    for (int j = 0; j < d; ++j) {
      double x = normal(random) + normal(common) + 0.3 * (j % 5);
      if (c.kind == Kind::dead_columns && (j % 7 == which || j % 7 == 5)) x = j % 2 ? 0.1 : 0;
      if (c.kind == Kind::zero_rows && (i % 9 == which || i % 9 == 5)) x = 0;
      const int index = c.kind == Kind::far_columns ? j : i;
      if (c.kind == Kind::far_columns || c.kind == Kind::far_rows)
        x *= index % 9 == which ? far : index % 9 == 5 ? 1 / far : 1;
      if (c.kind == Kind::views && i >= c.n / 2) x = z(i - c.n / 2, j) + 0.01 * x;
      put(dtype, z.matrix.data, z.index(i, j), x);
    }
  return z;
}

struct Inputs {
  Array e, t, s;
  Inputs(const Case& c, Dtype dtype)
      : e(features(c, dtype, c.d_t, 0)), t(features(c, dtype, c.d_t, 1)), s(features(c, dtype, c.d_s, 2)) {}
};

struct Results {
  double correlation = 0, gram = 0;
  Array e, t, s;
  bool operator==(const Results& other) const {
    return correlation == other.correlation && gram == other.gram && e == other.e && t == other.t && s == other.s;
  }
};

// As csrc/cpu/operators.cpp calls them.
Results run(const Kernels& kernels, const Case& c, Dtype dtype, const Inputs& in, int threads) {
  most_threads = threads;
  auto result = [&](bool wanted, Dtype type, int d) { return Array(type, wanted ? c.n : 0, d); };
  const Array& z = c.d_s ? in.s : in.e;
  Results out{0, 0, result(c.wants('e'), dtype, c.d_t), result(c.wants('t'), dtype, c.d_t),
              result(c.wants('s'), dtype, c.d_s)};
  const Array moments(wide(dtype), c.beta_corr ? kMoments : 0, c.d_t),
      gram_z = result(c.beta_mi && c.wants(c.d_s ? 's' : 'e'), wide(dtype), int(z.matrix.columns)),
      gram_t = result(c.beta_mi && c.wants('t'), wide(dtype), c.d_t);
  if (c.beta_corr)
    out.correlation = kernels.correlation_forward(dtype, in.e.matrix, in.t.matrix, kAlpha, moments.matrix.data);
  if (c.beta_mi) out.gram = kernels.gram_forward(dtype, {z.matrix, in.t.matrix, gram_z.matrix, gram_t.matrix, c.log});
  BackwardProblem problem;
  problem.e = in.e.matrix;
  problem.t = in.t.matrix;
  problem.moments = moments.matrix.data;
  problem.g_correlation = kUpstream * c.beta_corr;
  problem.g_mutual_information = kUpstream * c.beta_mi;
  problem.grad_e = out.e.matrix;
  problem.grad_t = out.t.matrix;
  problem.grad_s = out.s.matrix;
  (c.d_s ? problem.dgram_s : problem.dgram_e) = gram_z.matrix;
  problem.dgram_t = gram_t.matrix;
  kernels.backward(dtype, problem);
  return out;
}

bool agrees(const Case& c, Dtype dtype, const Inputs& in, const Results& out) {
  const Array& z = c.d_s ? in.s : in.e;
  Numbers corr_e, corr_t, gram_z, gram_t;
  double correlation = 0, gram = 0;
  if (c.beta_corr) correlation = naive::correlation(in.e.exact(), in.t.exact(), c.n, c.d_t, kAlpha, corr_e, corr_t);
  if (c.beta_mi) gram = naive::gram(z.exact(), int(z.matrix.columns), in.t.exact(), c.d_t, c.n, c.log, gram_z, gram_t);
  const double tolerance = dtype == Dtype::float64 ? 1e-11 : 2e-5;
  bool good = true;
  auto expect = [&](const char* what, double error, double allowed) {
    if (error <= allowed) return;
    good = false;
    std::printf("%s: %s is off by %.2g, allowed %.2g\n", c.name, what, error, allowed);
  };
  expect("the correlation loss", std::fabs(out.correlation - correlation), tolerance * (1 + std::fabs(correlation)));
  expect("the Gram loss", std::fabs(out.gram - gram), tolerance * (1 + std::fabs(gram)));
  auto expect_gradient = [&](const char* what, const Array& actual, const Numbers& of_corr, const Numbers& of_gram) {
    double error = 0, norm = 0;
    for (std::size_t i = 0; i < actual.bytes / size_of(dtype); ++i) {
      const double exact = kUpstream * ((of_corr.empty() ? 0 : c.beta_corr * of_corr[i]) +
                                        (of_gram.empty() ? 0 : c.beta_mi * of_gram[i]));
      error += std::pow(at(dtype, actual.matrix.data, i) - exact, 2);
      norm += exact * exact;
    }
    const double rounding = dtype == Dtype::float16 ? 2e-3 : dtype == Dtype::bfloat16 ? 1e-2 : tolerance;
    expect(what, std::sqrt(error), rounding * std::sqrt(norm));
  };
  const Numbers none;
  expect_gradient("∂L/∂e", out.e, corr_e, c.d_s ? none : gram_z);
  expect_gradient("∂L/∂t", out.t, corr_t, gram_t);
  expect_gradient("∂L/∂s", out.s, none, gram_z);
  return good;
}

// The sweep over pairs of every pair loss: the triangle of all rows and the rectangle of the later ones × all, whose
// sums and gradients must agree, and have the same bits on any number of threads. L_mi must be the naive one.
bool pairs_agree(const Kernels& kernels, const Case& c, Dtype dtype, const Inputs& in) {
  const Array& z = c.d_s ? in.s : in.e;
  const int d_s = int(z.matrix.columns), first = c.n / 3, n = c.n - first;
  const Dtype type = wide(dtype);
  struct Sweep {
    double sums[4];
    Array s, t, row_sums;
    bool operator==(const Sweep& other) const {
      return std::equal(sums, sums + 4, other.sums) && s == other.s && t == other.t && row_sums == other.row_sums;
    }
  };
  auto sweep = [&](PairLossKind loss, int begin, const Array& statistics, const Array& own_statistics, int threads) {
    most_threads = threads;
    const bool one_sided = kPairLosses[int(loss)].one_sided;
    const int rows = c.n - begin;
    Sweep out{{}, {type, rows, d_s}, {type, rows, c.d_t}, {type, one_sided ? 2 : 0, rows}};
    PairProblem problem = {};
    problem.s = z.matrix;
    problem.t = in.t.matrix;
    if (begin) {
      problem.other_s = problem.s;
      problem.other_t = problem.t;
      problem.s = {z.matrix.row<char>(0) + z.index(begin, 0) * size_of(dtype), rows, d_s, z.matrix.stride};
      problem.t = {in.t.matrix.row<char>(0) + in.t.index(begin, 0) * size_of(dtype), rows, c.d_t, in.t.matrix.stride};
      problem.other_statistics = one_sided ? statistics.matrix.data : nullptr;
    }
    problem.offset = begin;
    problem.loss = loss;
    problem.parameters[0] = one_sided ? 1e-3 : 0.5;
    problem.parameters[1] = one_sided ? 1e-5 : 3;
    problem.statistics = one_sided ? (begin ? own_statistics : statistics).matrix.data : nullptr;
    problem.dgram_s = out.s.matrix;
    problem.dgram_t = out.t.matrix;
    problem.row_sums = out.row_sums.matrix.data;
    kernels.gram(dtype, problem, out.sums);
    return out;
  };
  Array statistics(type, 2, c.n), own_statistics(type, 2, n);
  for (int side = 0; side < 2; ++side)
    for (int i = 0; i < c.n; ++i) {
      put(type, statistics.matrix.data, side * c.n + i, 0.5 + i % 3);
      if (i >= first) put(type, own_statistics.matrix.data, side * n + i - first, 0.5 + i % 3);
    }
  const double tolerance = dtype == Dtype::float64 ? 1e-11 : dtype == Dtype::bfloat16 ? 1e-2 : 2e-5;
  bool good = true;
  auto expect = [&](const char* loss, const char* what, bool holds) {
    if (!holds) std::printf("%s: %s of the pair loss %s\n", c.name, what, loss);
    good &= holds;
  };
  for (int kind = 0; kind < int(sizeof kPairLosses / sizeof *kPairLosses); ++kind) {
    const char* const name = kPairLosses[kind].name;
    const Sweep whole = sweep(PairLossKind(kind), 0, statistics, own_statistics, kThreads),
                part = sweep(PairLossKind(kind), first, statistics, own_statistics, kThreads);
    expect(name, "one thread gives other bits", sweep(PairLossKind(kind), 0, statistics, own_statistics, 1) == whole);
    auto close = [&](const Array& all, const Array& some) {
      double error = 0, norm = 0;
      for (int64_t i = 0; i < some.matrix.rows; ++i)
        for (int64_t j = 0; j < some.matrix.columns; ++j) {
          error += std::pow(some(i, j) - all(i + first, j), 2);
          norm += std::pow(all(i + first, j), 2);
        }
      return error <= tolerance * tolerance * norm;
    };
    if (first)
      expect(name, "a rectangle's gradients are not the triangle's,", close(whole.s, part.s) && close(whole.t, part.t));
    if (kind > 0) continue;
    Numbers gram_s, gram_t;
    const double exact = naive::gram(z.exact(), d_s, in.t.exact(), c.d_t, c.n, false, gram_s, gram_t);
    expect(name, "the value is wrong,", std::fabs(whole.sums[0] - exact) <= 2e-5 * (1 + std::fabs(exact)));
  }
  return good;
}

constexpr Kind kPlain = Kind::plain;
const Case kCases[] = {
    {"two rows", 2, 0, 3, "et"},
    {"one feature", 37, 0, 1, "et", kPlain, false, 2, 0},
    {"three rows", 3, 3, 5, "ets"},
    {"ragged", 37, 5, 19, "ets"},
    {"ragged, on threads", 131, 77, 45, "ets"},
    {"rows apart", 70, 33, 133, "ets", kPlain, false, 2, 1, 3},
    {"logarithms", 101, 0, 70, "et", kPlain, true},
    {"losses only", 100, 0, 75, ""},
    {"the teacher alone", 66, 20, 130, "t"},
    {"the student alone, one term", 130, 0, 99, "e", kPlain, false, 2, 0},
    {"the other term", 130, 65, 7, "s", kPlain, true, 0, 1},
    {"few rows as they lie", 101, 144, 160, "ets"},
    {"few rows as they lie, apart", 66, 0, 128, "et", kPlain, true, 0, 1, 5},
    {"a page's stride", 301, 0, 1024, "et", kPlain, false, 2, 0},
    {"many row chunks", 700, 0, 67, "et", kPlain, false, 2, 0},
    {"dead columns", 65, 0, 71, "et", Kind::dead_columns},
    {"zero rows", 120, 48, 64, "ets", Kind::zero_rows},
    {"zero rows as they lie", 90, 0, 128, "et", Kind::zero_rows, false, 0, 1},
    {"columns out of range", 40, 0, 37, "et", Kind::far_columns, false, 2, 0},
    {"rows out of range", 130, 48, 40, "ts", Kind::far_rows, false, 0, 1},
    {"wide rows out of range", 40, 0, 128, "e", Kind::far_rows, false, 0, 1},
    {"on AMX", 230, 40, 45, "ets", kPlain, true},
    {"two views, on AMX", 256, 0, 64, "et", Kind::views, false, 0, 1},
    {"several blocks", 1060, 33, 34, "ts", kPlain, false, 0, 1, 1},
    {"gradients past the caches", 1030, 0, 8200, "e", kPlain, false, 2, 0, 0, true},
};

const Kernels* kernels_of(const std::string& set) {
#define X(name) \
  if (set == #name) return &name::kernels();
  ITRD_SETS
#undef X
  std::printf("no kernels of the instruction set %s here\n", set.c_str());
  std::exit(2);
}

// Memory taken by one thread and given back by another, which keeps it beyond the end of the first.
bool memory_changes_hands() {
  constexpr std::size_t bytes = 3 * kSmallestOnPages / 2 + 5;
  void* taken = nullptr;
  std::thread([&] { std::memset(taken = take_memory(bytes), 1, bytes); }).join();
  give_back_memory(taken, bytes);
  bool good = false;
  std::thread([&] { give_back_memory(take_memory(bytes), bytes); }).join();
  good = take_memory(bytes) == taken;
  give_back_memory(taken, bytes);
  if (!good) std::puts("memory that was given back is not kept");
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  const Kernels& kernels = *kernels_of(argc > 1 ? argv[1] : "portable");
  const char* const names[] = {"float64", "float32", "bfloat16", "float16"};
  bool good = memory_changes_hands();
  int cases = 0;
  for (int code = 0; code < 4; ++code) {
    if (argc > 2 && std::string(argv[2]) != names[code]) continue;
    const auto dtype = Dtype(code);
    std::vector<std::pair<const Case*, Results>> alone;
    for (const Case& c : kCases) {
      if (c.large && dtype != Dtype::float32) continue;
      const Inputs in(c, dtype);
      Results out = run(kernels, c, dtype, in, kThreads);
      const bool same = run(kernels, c, dtype, in, 1) == out;
      if (!same) std::printf("%s: one thread gives other bits\n", c.name);
      const bool pairs = c.beta_mi == 0 || c.log || pairs_agree(kernels, c, dtype, in);
      if (!agrees(c, dtype, in, out) || !same || !pairs) std::printf("in %s\n", names[code]), good = false;
      if (!c.large) alone.emplace_back(&c, std::move(out));
      ++cases;
    }
    // Once more, by two threads at once that meet on their ways.
    bool equal[2] = {true, true};
    auto again = [&](int who) {
      for (std::size_t i = 0; i < alone.size(); ++i) {
        const auto& [c, expected] = alone[who ? alone.size() - 1 - i : i];
        equal[who] &= run(kernels, *c, dtype, Inputs(*c, dtype), kThreads) == expected;
      }
    };
    std::thread other(again, 1);
    again(0);
    other.join();
    if (!equal[0] || !equal[1]) std::puts("two threads at once give other bits"), good = false;
  }
  std::printf(good ? "all %d cases agree\n" : "WRONG, of %d cases\n", cases);
  return good ? 0 : 1;
}
