// Runs the sweeps over pairs of csrc/cuda on the CPU, without torch, and compares them with the losses in float64.
//
//   pair_driver [quick]    exit status 1 if any case is wrong
#include "buffers.h"
#include "pairs.cuh"

namespace {

using itrd::PairLossKind;

struct Case {
  const char* name;
  Dtype type;
  PairLossKind kind;
  int begin, end;  // the own rows, of all m; both 0: the triangle
  int m, d_s, d_t;
  bool want_s, want_t, masked = false, tf32 = false;
  int capability = 80, tile = 0, panel = 0, padding = 0;  // elements beside each row
};

struct Outputs {
  double sums[2] = {};
  Numbers gradient_s, gradient_t, rows_s, rows_t;
};

// What the losses say of these rows: `statistics` (2, m), and which rows count.
Outputs formula(const Case& c, int begin, int end, const Numbers& s, const Numbers& t, const Numbers& statistics,
                const std::vector<char>& keep, const double* parameters) {
  auto unit = [&](Numbers z, int d, Numbers& inverse) {
    for (int i = 0; i < c.m; ++i) {
      double square = 0;
      for (int k = 0; k < d; ++k) square += keep[i] ? std::pow(z[size_t(i) * d + k], 2) : 0;
      inverse[i] = square == 0 ? 0 : 1 / std::sqrt(square);
      for (int k = 0; k < d; ++k) z[size_t(i) * d + k] = keep[i] ? z[size_t(i) * d + k] * inverse[i] : 0;
    }
    return z;
  };
  Numbers inverse_s(c.m), inverse_t(c.m), x = unit(s, c.d_s, inverse_s), y = unit(t, c.d_t, inverse_t);
  double m_s = 0, m_st = 0;
  for (int i = 0; i < c.m; ++i) m_s += inverse_s[i] != 0, m_st += inverse_s[i] != 0 && inverse_t[i] != 0;
  auto dot = [](const Numbers& z, int d, int i, int j) {
    double sum = 0;
    for (int k = 0; k < d; ++k) sum += z[size_t(i) * d + k] * z[size_t(j) * d + k];
    return sum;
  };
  Outputs out;
  out.gradient_s = Numbers(size_t(end - begin) * c.d_s);
  out.gradient_t = Numbers(size_t(end - begin) * c.d_t);
  out.rows_s = out.rows_t = Numbers(end - begin);
  for (int i = begin; i < end; ++i)
    for (int j = 0; j < c.m; ++j) {
      auto seen_from = [&](int own, int other) {
        itrd::PairInput<double> in = {dot(x, c.d_s, i, j),
                                      dot(y, c.d_t, i, j),
                                      statistics[own],
                                      statistics[c.m + own],
                                      statistics[other],
                                      statistics[c.m + other],
                                      itrd::pair_coefficients(c.kind, m_s, m_st, parameters),
                                      {parameters[0], parameters[1]}};
        return itrd::pair_terms(c.kind, in);
      };
      itrd::PairTerms<double> there = seen_from(i, j), back = seen_from(j, i);
      bool one_sided = itrd::kPairLosses[int(c.kind)].one_sided;
      double w_s = there.w_s + (one_sided ? back.w_s : 0), w_t = there.w_t + (one_sided ? back.w_t : 0);
      out.sums[0] += there.first;
      out.sums[1] += there.second;
      out.rows_s[i - begin] += there.row_s;
      out.rows_t[i - begin] += there.row_t;
      auto add = [&](Numbers& to, const Numbers& z, int d, double w) {
        double along = dot(z, d, i, j);
        for (int k = 0; k < d; ++k)
          to[size_t(i - begin) * d + k] += w * (z[size_t(j) * d + k] - along * z[size_t(i) * d + k]);
      };
      add(out.gradient_s, x, c.d_s, 4 * w_s * inverse_s[i]);
      add(out.gradient_t, y, c.d_t, 4 * w_t * inverse_t[i]);
    }
  return out;
}

bool check(const Case& c) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> about_one(0.7, 1.3);
  Features s(c.type, c.m, c.d_s, c.padding, random), t(c.type, c.m, c.d_t, c.padding, random);
  bool rectangle = c.end > 0, one_sided = itrd::kPairLosses[int(c.kind)].one_sided;
  int begin = c.begin, end = rectangle ? c.end : c.m, n = end - begin;
  size_t w = size_of(wide(c.type));
  std::vector<char> keep(c.m, 1);
  Numbers statistics(2 * size_t(c.m), 1);
  Buffer given(2 * c.m * w), masks(c.m);
  for (int i = 0; i < c.m; ++i) {
    if (i % 5 == 2)
      for (int k = 0; k < c.d_s; ++k) s.set(c.type, i, k, 0);
    keep[i] = !c.masked || i % 4 != 1;
    static_cast<bool*>(masks.get())[i] = keep[i];
    for (int k = 0; k < 2; ++k) {
      double x = one_sided ? about_one(random) : k == 0 ? i % 5 != 2 : 1;
      put(wide(c.type), given.get(), k * c.m + i, keep[i] ? x : NAN);
      statistics[k * c.m + i] = keep[i] ? at(wide(c.type), given.get(), k * c.m + i) : 0;
    }
    if (keep[i]) continue;
    for (int k = 0; k < c.d_s; ++k) s.set(c.type, i, k, NAN);
    for (int k = 0; k < c.d_t; ++k) t.set(c.type, i, k, NAN);
  }
  // Own rows have memory of their own, as have their masks and statistics.
  Features own_s(c.type, n, c.d_s, 0), own_t(c.type, n, c.d_t, 0);
  Buffer own_given(2 * n * w), own_masks(n);
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < c.d_s; ++k) own_s.set(c.type, i, k, s.exact[size_t(begin + i) * c.d_s + k]);
    for (int k = 0; k < c.d_t; ++k) own_t.set(c.type, i, k, t.exact[size_t(begin + i) * c.d_t + k]);
    for (int k = 0; k < 2; ++k)
      put(wide(c.type), own_given.get(), k * n + i, at(wide(c.type), given.get(), k * c.m + begin + i));
    static_cast<bool*>(own_masks.get())[i] = keep[begin + i];
  }

  auto buffer = [&](bool wanted, size_t count) { return Buffer(wanted ? count * w : 0); };
  Buffer sums(4 * sizeof(double)), dgram_s = buffer(c.want_s, size_t(n) * c.d_s);
  Buffer dgram_t = buffer(c.want_t, size_t(n) * c.d_t);
  Buffer row_sums = buffer(one_sided && (c.want_s || c.want_t), 2 * n);
  double count = 0;
  for (char kept : keep) count += kept;
  itrd::PairProblem p = {};
  p.dtype = c.type;
  p.other_s = s.matrix();
  p.other_t = t.matrix();
  p.s = rectangle ? own_s.matrix() : p.other_s;
  p.t = rectangle ? own_t.matrix() : p.other_t;
  p.rectangle = rectangle;
  p.offset = begin;
  p.other_keep = c.masked ? static_cast<bool*>(masks.get()) : nullptr;
  p.keep = c.masked && rectangle ? static_cast<bool*>(own_masks.get()) : p.other_keep;
  p.kind = c.kind;
  if (c.kind == PairLossKind::Polynomial) p.parameters[0] = 0.5, p.parameters[1] = 3;
  if (c.kind == PairLossKind::Pkt) p.parameters[0] = std::pow(count, -3), p.parameters[1] = count * 1e-7;
  if (one_sided) {
    p.other_statistics = {given.get(), 2, c.m, c.m};
    p.statistics = rectangle ? itrd::Matrix{own_given.get(), 2, n, n} : p.other_statistics;
  }
  p.tf32 = c.tf32;
  p.capability = c.capability;
  p.tile = c.tile;
  p.panel = c.panel;
  p.sums = static_cast<double*>(sums.get());
  p.dgram_s = dgram_s.get();
  p.dgram_t = dgram_t.get();
  p.row_sums = row_sums.get();
  Parts parts(itrd::workspace_bytes(p));
  itrd::gram(p, parts.workspace, nullptr);

  const Outputs exact = formula(c, begin, end, s.exact, t.exact, statistics, keep, p.parameters);
  bool half = c.type == Dtype::bfloat16 || c.type == Dtype::float16;
  double rounding = c.type == Dtype::float64 ? 1e-10 : c.tf32 ? 1e-2 : half ? 3e-3 : 5e-5;
  bool good = true;
  auto expect = [&](const char* what, const Buffer& out, Dtype type, int first, const Numbers& exact) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < exact.size(); ++i) {
      error += std::pow(at(type, out.get(), first + int64_t(i)) - exact[i], 2);
      norm += exact[i] * exact[i];
    }
    if (std::sqrt(error) <= rounding * std::sqrt(norm) + 1e-300) return;
    good = false;
    std::printf("%s: %s is off by %.2g of %.2g\n", c.name, what, std::sqrt(error), std::sqrt(norm));
  };
  expect("the first sum", sums, Dtype::float64, 0, {exact.sums[0]});
  expect("the second sum", sums, Dtype::float64, 1, {exact.sums[1]});
  if (c.want_s) expect("the student's gradient", dgram_s, wide(c.type), 0, exact.gradient_s);
  if (c.want_t) expect("the teacher's gradient", dgram_t, wide(c.type), 0, exact.gradient_t);
  if (row_sums.bytes) expect("the student's row sums", row_sums, wide(c.type), 0, exact.rows_s);
  if (row_sums.bytes) expect("the teacher's row sums", row_sums, wide(c.type), n, exact.rows_t);
  return good;
}

constexpr PairLossKind kL = PairLossKind::MutualInformation, kPoly = PairLossKind::Polynomial, kPkt = PairLossKind::Pkt;

const Case kQuick[] = {
    {"pkt, triangle", Dtype::float32, kPkt, 0, 0, 70, 5, 19, true, true},
    {"pkt, rectangle, masked", Dtype::float32, kPkt, 9, 40, 70, 12, 20, true, true, true},
    {"polynomial, panels, tf32", Dtype::float32, kPoly, 0, 0, 90, 12, 20, true, true, false, true, 80, 64, 64},
};

const Case kAll[] = {
    {"L_mi, triangle, float64", Dtype::float64, kL, 0, 0, 40, 7, 9, true, true},
    {"L_mi, rectangle, bfloat16, rows apart", Dtype::bfloat16, kL, 3, 70, 75, 24, 40, true, true, true, false, 80, 0, 0,
     3},
    {"L_mi, sums only", Dtype::float32, kL, 0, 0, 66, 8, 8, false, false},
    {"polynomial, no row", Dtype::float32, kPoly, 5, 5, 20, 8, 8, true, true},
    {"polynomial, one row, float64", Dtype::float64, kPoly, 5, 6, 40, 8, 9, true, false, true},
    {"pkt, triangle, float16", Dtype::float16, kPkt, 0, 0, 90, 16, 32, true, true, true},
    {"pkt, panels of a rectangle, float64", Dtype::float64, kPkt, 10, 60, 64, 6, 7, true, true, true, false, 80, 0, 32},
    {"pkt, panels of the triangle", Dtype::float32, kPkt, 0, 0, 80, 9, 12, false, true, false, false, 80, 64, 64},
    {"pkt, bfloat16 on sm_75", Dtype::bfloat16, kPkt, 20, 60, 70, 12, 12, true, true, false, false, 75},
    {"pkt, float16 on sm_75", Dtype::float16, kPkt, 0, 0, 70, 12, 12, true, true, false, false, 75},
};

}  // namespace

int main(int argc, char**) {
  bool good = true;
  for (const Case& c : kQuick) good &= check(c);
  if (argc == 1)
    for (const Case& c : kAll) good &= check(c);
  std::puts(good ? "all cases agree" : "WRONG");
  return good ? 0 : 1;
}
