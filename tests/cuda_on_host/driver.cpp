// Runs the forward and backward passes of csrc/cuda on the CPU, without torch, and compares them with the formulas in
// float64.
//
//   driver [quick | workspace]    exit status 1 if any case is wrong
#include <string>

#include "buffers.h"

namespace {

struct Case {
  const char* name;
  Dtype type;
  int n, d_s, d_t;  // d_s = 0: the Gram term reads z_e
  bool want_e, want_t, want_s;
  bool log = false, tf32 = false;
  double beta_corr = 2, beta_mi = 1;
  int capability = 80, tile = 0, panel = 0, padding = 0;  // elements beside each row
};

bool check(const Case& c) {
  std::mt19937 random(7);
  auto features = [&](int d) { return Features(c.type, c.n, d, c.padding, random); };
  Features e = features(c.d_t), t = features(c.d_t), s = features(c.d_s ? c.d_s : 1);
  const Features& z = c.d_s ? s : e;
  bool want_dgram_s = c.d_s ? c.want_s : c.want_e;
  size_t element = size_of(c.type), w = size_of(wide(c.type));
  auto buffer = [&](bool wanted, size_t count, size_t bytes) { return Buffer(wanted ? count * bytes : 0); };

  Buffer total(w), corr(w), mi(w), moments = buffer(c.beta_corr != 0, size_t(itrd::kMoments) * c.d_t, w);
  Buffer dgram_s = buffer(c.beta_mi != 0 && want_dgram_s, size_t(c.n) * z.d, w);
  Buffer dgram_t = buffer(c.beta_mi != 0 && c.want_t, size_t(c.n) * c.d_t, w);
  itrd::ForwardProblem f = {};
  f.dtype = c.type;
  f.n = c.n;
  f.e = e.matrix();
  f.t = t.matrix();
  f.s = z.matrix();
  f.alpha = 1.5;
  f.beta_corr = c.beta_corr;
  f.beta_mi = c.beta_mi;
  f.log = c.log;
  f.tf32 = c.tf32;
  f.capability = c.capability;
  f.tile = c.tile;
  f.panel = c.panel;
  f.total = total.get();
  f.correlation = corr.get();
  f.mutual_information = mi.get();
  f.moments = moments.get();
  f.dgram_s = dgram_s.get();
  f.dgram_t = dgram_t.get();
  Parts parts(itrd::workspace_bytes(f));
  unsigned before = emulation::machine().launches;
  itrd::forward(f, parts.workspace, nullptr);
  unsigned forward_launches = emulation::machine().launches - before;

  Buffer upstream(w), grad_e = buffer(c.want_e, size_t(c.n) * c.d_t, element);
  Buffer grad_t = buffer(c.want_t, size_t(c.n) * c.d_t, element);
  Buffer grad_s = buffer(c.d_s && c.want_s, size_t(c.n) * s.d, element);
  put(wide(c.type), upstream.get(), 0, -1.5);
  itrd::BackwardProblem b = {};
  b.dtype = c.type;
  b.n = c.n;
  b.e = e.matrix();
  b.t = t.matrix();
  b.g_total = upstream.get();
  b.g_mutual_information = upstream.get();
  b.beta_corr = c.beta_corr;
  b.beta_mi = c.beta_mi;
  b.moments = moments.get();
  b.dgram_s = dgram_s.get();
  b.dgram_t = dgram_t.get();
  b.grad_e = grad_e.get();
  b.grad_t = grad_t.get();
  b.grad_s = grad_s.get();
  b.width_e = b.width_t = c.d_t;
  b.width_s = s.d;
  b.gram_on_e = c.d_s == 0;
  itrd::backward(b, nullptr);
  unsigned backward_launches = emulation::machine().launches - before - forward_launches;

  Numbers corr_e, corr_t, gram_s, gram_t;
  double l_corr = naive::correlation(e.exact, t.exact, c.n, c.d_t, 1.5, corr_e, corr_t);
  double l_mi = naive::gram(z.exact, z.d, t.exact, c.d_t, c.n, c.log, gram_s, gram_t);
  double share_corr = -1.5 * c.beta_corr, share_mi = -1.5 * (c.beta_mi + 1);
  double tolerance = c.type == Dtype::float64 ? 1e-11 : 2e-5;
  bool good = true;
  auto expect = [&](const char* what, double error, double allowed) {
    if (error <= allowed) return;
    good = false;
    std::printf("%s: %s is off by %.2g, allowed %.2g\n", c.name, what, error, allowed);
  };
  if (!c.panel) expect("launches of the forward pass", forward_launches, c.log ? 4 : 3);
  expect("launches of the backward pass", backward_launches, 1);
  auto expect_scalar = [&](const char* what, const Buffer& out, double exact) {
    double error = std::fabs(at(wide(c.type), out.get(), 0) - exact);
    expect(what, std::isnan(error) ? INFINITY : error, (c.tf32 ? 2e-3 : tolerance) * std::max(1.0, std::fabs(exact)));
  };
  auto expect_gradient = [&](const char* what, const Buffer& out, auto exact) {
    double error = 0, norm = 0;
    for (size_t i = 0; i < out.bytes / element; ++i) {
      error += std::pow(at(c.type, out.get(), int64_t(i)) - exact(i), 2);
      norm += exact(i) * exact(i);
    }
    double rounding = c.type == Dtype::float16 ? 2e-3 : c.type == Dtype::bfloat16 ? 1e-2 : c.tf32 ? 5e-3 : tolerance;
    if (out.bytes) expect(what, std::isnan(error) ? INFINITY : std::sqrt(error), rounding * std::sqrt(norm));
  };
  double both = (c.beta_corr ? c.beta_corr * l_corr : 0) + (c.beta_mi ? c.beta_mi * l_mi : 0);
  expect_scalar("total", total, both);
  if (c.beta_corr) expect_scalar("correlation", corr, l_corr);
  if (c.beta_mi) expect_scalar("mutual information", mi, l_mi);
  auto corr_part = [&](const Numbers& g, size_t i) { return c.beta_corr ? share_corr * g[i] : 0; };
  auto gram_part = [&](const Numbers& g, size_t i) { return c.beta_mi ? share_mi * g[i] : 0; };
  expect_gradient("grad_e", grad_e,
                  [&](size_t i) { return corr_part(corr_e, i) + (c.d_s ? 0 : gram_part(gram_s, i)); });
  expect_gradient("grad_t", grad_t, [&](size_t i) { return corr_part(corr_t, i) + gram_part(gram_t, i); });
  expect_gradient("grad_s", grad_s, [&](size_t i) { return gram_part(gram_s, i); });
  return good;
}

// At most 64 MiB and eight float32 for each feature; all of W at once up to n = 4096.
bool check_workspace() {
  bool good = true;
  for (Dtype type : {Dtype::float32, Dtype::bfloat16, Dtype::float64})
    for (int n : {2, 64, 1000, 4095, 4096, 5000, 8192, 30000})
      for (int d : {16, 64, 512, 2048})
        for (bool both : {false, true}) {
          int not_null = 0;
          itrd::ForwardProblem f = {};
          f.dtype = type;
          f.n = n;
          f.e = f.t = f.s = {nullptr, d, d};
          f.alpha = f.beta_corr = f.beta_mi = 1;
          f.dgram_s = &not_null;
          f.dgram_t = both ? &not_null : nullptr;
          itrd::WorkspaceBytes bytes = itrd::workspace_bytes(f);
          size_t sizes[sizeof(bytes) / sizeof(size_t)], total = 0;
          std::memcpy(sizes, &bytes, sizeof(bytes));
          for (size_t size : sizes) total += size;
          bool small = total <= (64u << 20) + size_t(32) * n * d;
          bool whole = n > 4096 || both || type == Dtype::float64 || bytes.weights_s >= size_t(4) * n * n;
          if (!small || !whole) std::printf("n = %d, d = %d: %zu bytes, W %zu\n", n, d, total, bytes.weights_s);
          good &= small && whole;
        }
  return good;
}

const Case kQuick[] = {
    {"float32, both terms", Dtype::float32, 40, 0, 20, true, true, false},
    {"float32, tf32, ragged", Dtype::float32, 37, 5, 19, true, true, true, false, true},
    {"float32, many row chunks", Dtype::float32, 132, 0, 6, true, false, false, false, false, 2, 0},
};

const Case kAll[] = {
    {"bfloat16, rows apart", Dtype::bfloat16, 35, 24, 40, true, true, true, false, false, 2, 1, 80, 0, 0, 3},
    {"float16, aligned", Dtype::float16, 64, 0, 32, true, true, false},
    {"float64, log, odd", Dtype::float64, 33, 7, 9, false, true, true, true},
    {"float32, log", Dtype::float32, 34, 0, 12, true, false, false, true},
    {"float32, loss only", Dtype::float32, 65, 0, 12, false, false, false},
    {"float32, tile of 64", Dtype::float32, 70, 0, 20, true, true, false, false, false, 2, 1, 80, 64},
    {"tf32, tile of 64", Dtype::float32, 70, 12, 20, true, false, true, false, true, 0, 1, 80, 64},
    {"float32, tile of 128", Dtype::float32, 130, 0, 9, true, false, false, false, false, 0, 1, 80, 128},
    {"bfloat16, tile of 128", Dtype::bfloat16, 130, 0, 16, true, false, false, false, false, 0, 1, 80, 128},
    {"float64, tile of 64", Dtype::float64, 66, 0, 10, true, true, false, false, false, 2, 1, 80, 64},
    {"float32, panels", Dtype::float32, 100, 0, 12, true, true, false, false, false, 2, 1, 80, 0, 32},
    {"tf32, panels, log", Dtype::float32, 100, 9, 12, true, true, true, true, true, 2, 1, 80, 0, 64},
    {"bfloat16 on sm_75", Dtype::bfloat16, 40, 0, 12, true, true, false, false, false, 2, 1, 75},
    {"float16 on sm_75", Dtype::float16, 40, 0, 12, true, true, false, false, false, 2, 1, 75},
    {"float32, three rows", Dtype::float32, 3, 3, 5, true, true, true},
    {"float32, wide", Dtype::float32, 9, 0, 300, true, true, false},
};

}  // namespace

int main(int argc, char** argv) {
  bool good = true;
  if (argc > 1 && argv[1] == std::string("workspace"))
    good = check_workspace();
  else
    for (const Case& c : kQuick) good &= check(c);
  if (argc == 1)
    for (const Case& c : kAll) good &= check(c);
  std::puts(good ? "all cases agree" : "WRONG");
  return good ? 0 : 1;
}
