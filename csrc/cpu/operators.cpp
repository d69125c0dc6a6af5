// The operators itrd_cpu::forward, backward and gram: checks, allocation and the choice of instruction set.
#include "operators.h"

#include <cmath>
#include <cstdlib>
#include <cstring>

#include "cpu/buffer.h"
#include "cpu/interface.h"
#include "gram_operator.h"

namespace itrd {

void run_parallel(int threads, void (*body)(void* context, int thread), void* context) {
  torch::stable::parallel_for(0, threads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t thread = begin; thread < end; ++thread) body(context, int(thread));
  });
}

int max_threads() { return int(torch::stable::get_num_threads()); }

namespace {

constexpr const char* kLibrary = "itrd_cpu";

// ITRD_CPU_ISA = amx, avx512_bf16, avx512, avx2 or portable asks for one instruction set; else the best that the
// processor has.
const Kernels& choose_kernels() {
  const char* const asked = std::getenv("ITRD_CPU_ISA");
  auto wants = [&](const char* name) { return asked == nullptr || std::strcmp(asked, name) == 0; };
#if defined(__x86_64__)
  const bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                          __builtin_cpu_supports("avx512cd");
#if defined(__linux__)
  if (wants("amx") && has_avx512 && amx::available()) return amx::kernels();
#endif
  if (wants("avx512_bf16") && has_avx512 && __builtin_cpu_supports("avx512bf16")) return avx512_bf16::kernels();
  if (wants("avx512") && has_avx512) return avx512::kernels();
  if (wants("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2"))
    return avx2::kernels();
#endif
  STD_TORCH_CHECK(wants("portable"), "ITRD_CPU_ISA=", asked,
                  " cannot run on this processor; expected amx, avx512_bf16, avx512, avx2 or portable, or nothing for "
                  "the best of them");
  return portable::kernels();
}

const Kernels& kernels() {
  static const Kernels& chosen = choose_kernels();
  return chosen;
}

// No data where there is nothing to read or write.
Matrix matrix_if(const Tensor& z) { return z.dim() == 2 ? matrix(z) : Matrix{}; }
Matrix result_if(const Tensor& z) {
  return z.dim() == 2 ? Matrix{z.mutable_data_ptr(), z.size(0), z.size(1), z.stride(0)} : Matrix{};
}

// An uninitialised (rows, columns), empty where it is not wanted, on memory that is kept for the next call: the
// allocator gives large ones back to the system, and fresh pages take longer to come than a gradient to be written.
Tensor kept(bool wanted, const Tensor& like, ScalarType dtype, int64_t rows, int64_t columns) {
  if (!wanted) return empty(like, dtype, {0});
  const std::size_t bytes = rows * columns * (dtype == ScalarType::Double ? 8 : dtype == ScalarType::Float ? 4 : 2);
  if (bytes < kSmallestOnPages) return empty(like, dtype, {rows, columns});
  return torch::stable::from_blob(take_memory(bytes), {rows, columns}, {columns, 1}, like.device(), dtype,
                                  [bytes](void* data) { give_back_memory(data, bytes); });
}

Tensor scalar(const Tensor& like, double value) {
  Tensor result = empty(like, wide(like), {});
  if (wide(like) == ScalarType::Double) {
    *static_cast<double*>(result.mutable_data_ptr()) = value;
  } else {
    *static_cast<float*>(result.mutable_data_ptr()) = float(value);
  }
  return result;
}

double upstream(const std::optional<Tensor>& g, double weight, const Tensor& like) {
  if (!g.has_value()) return 0;
  check_upstream(kLibrary, g, like);
  const void* const data = g->const_data_ptr();
  return weight *
         (wide(like) == ScalarType::Double ? *static_cast<const double*>(data) : *static_cast<const float*>(data));
}

ForwardResult forward(const Tensor& z_e_in, const Tensor& z_t_in, const std::optional<Tensor>& z_s_in, double alpha,
                      double beta_corr, double beta_mi, bool log, bool want_e, bool want_t, bool want_s, bool) {
  check_inputs(kLibrary, z_e_in, z_t_in, z_s_in, beta_corr != 0);
  const Tensor z_e = with_unit_columns(z_e_in), z_t = with_unit_columns(z_t_in);
  const bool want_gram_s = z_s_in.has_value() ? want_s : want_e;
  const int64_t n = z_t.size(0), d_t = z_t.size(1);
  double total = 0, correlation = NAN, mutual_information = NAN;

  const bool moments_wanted = beta_corr != 0 && (want_e || want_t);
  Tensor moments = moments_wanted ? empty(z_t, wide(z_t), {kMoments, d_t}) : empty(z_t, wide(z_t), {0});
  if (beta_corr != 0) {
    const Tensor scratch = moments_wanted ? moments : empty(z_t, wide(z_t), {kMoments, d_t});
    correlation = kernels().correlation_forward(dtype_of(kLibrary, z_t), matrix(z_e), matrix(z_t), alpha,
                                                scratch.mutable_data_ptr());
    total += beta_corr * correlation;
  }

  const Tensor z_s = z_s_in.has_value() ? with_unit_columns(*z_s_in) : z_e;
  Tensor dgram_s = kept(beta_mi != 0 && want_gram_s, z_t, wide(z_t), n, z_s.size(1)),
         dgram_t = kept(beta_mi != 0 && want_t, z_t, wide(z_t), n, d_t);
  if (beta_mi != 0) {
    mutual_information = kernels().gram_forward(
        dtype_of(kLibrary, z_t), {matrix(z_s), matrix(z_t), result_if(dgram_s), result_if(dgram_t), log});
    total += beta_mi * mutual_information;
  }
  return {scalar(z_t, total), scalar(z_t, correlation), scalar(z_t, mutual_information), moments, dgram_s, dgram_t};
}

BackwardResult backward(const std::optional<Tensor>& g_total, const std::optional<Tensor>& g_correlation,
                        const std::optional<Tensor>& g_mutual_information, const Tensor& z_e_in, const Tensor& z_t_in,
                        const std::optional<Tensor>& z_s, const Tensor& moments, const Tensor& dgram_s,
                        const Tensor& dgram_t, double beta_corr, double beta_mi, bool want_e, bool want_t,
                        bool want_s) {
  check_inputs(kLibrary, z_e_in, z_t_in, z_s, moments.dim() == 2);
  const Tensor z_e = with_unit_columns(z_e_in), z_t = with_unit_columns(z_t_in),
               gram_input = z_s.has_value() ? *z_s : z_e;
  check_saved(kLibrary, moments, z_t, kMoments, z_t.size(1));
  check_saved(kLibrary, dgram_s, z_t, gram_input.size(0), gram_input.size(1));
  check_saved(kLibrary, dgram_t, z_t, z_t.size(0), z_t.size(1));
  auto gradient = [](bool wanted, const Tensor& z) { return kept(wanted, z, z.scalar_type(), z.size(0), z.size(1)); };
  Tensor grad_e = gradient(want_e, z_e), grad_t = gradient(want_t, z_t),
         grad_s = gradient(z_s.has_value() && want_s, z_s.has_value() ? *z_s : z_t);

  BackwardProblem problem;
  problem.e = matrix(z_e);
  problem.t = matrix(z_t);
  problem.moments = moments.dim() == 2 ? moments.const_data_ptr() : nullptr;
  problem.g_correlation = upstream(g_total, beta_corr, z_t) + upstream(g_correlation, 1, z_t);
  problem.g_mutual_information = upstream(g_total, beta_mi, z_t) + upstream(g_mutual_information, 1, z_t);
  problem.grad_e = result_if(grad_e);
  problem.grad_t = result_if(grad_t);
  problem.grad_s = result_if(grad_s);
  problem.dgram_e = z_s.has_value() ? Matrix{} : matrix_if(dgram_s);
  problem.dgram_t = matrix_if(dgram_t);
  problem.dgram_s = z_s.has_value() ? matrix_if(dgram_s) : Matrix{};
  kernels().backward(dtype_of(kLibrary, z_t), problem);
  return {grad_e, grad_t, grad_s};
}

const void* data_if(const std::optional<Tensor>& z) { return z.has_value() ? z->const_data_ptr() : nullptr; }

GramResult gram(const Tensor& z_s_in, const Tensor& z_t_in, const std::optional<Tensor>& other_s_in,
                const std::optional<Tensor>& other_t_in, int64_t offset, const std::optional<Tensor>& keep_in,
                const std::optional<Tensor>& other_keep_in, std::string loss, std::vector<double> parameters,
                const std::optional<Tensor>& coefficients_in, const std::optional<Tensor>& statistics_in,
                const std::optional<Tensor>& other_statistics_in, bool want_s, bool want_t, bool) {
  const GramArguments arguments{z_s_in,        z_t_in, other_s_in, other_t_in,      offset,        keep_in,
                                other_keep_in, loss,   parameters, coefficients_in, statistics_in, other_statistics_in,
                                want_s,        want_t};
  const GramCall call = check_gram(kLibrary, arguments, true);
  auto rows = [](const std::optional<Tensor>& z) {
    return z.has_value() ? std::optional<Tensor>(with_unit_columns(*z)) : std::nullopt;
  };
  const Tensor z_s = with_unit_columns(z_s_in), z_t = with_unit_columns(z_t_in);
  const auto other_s = rows(other_s_in), other_t = rows(other_t_in), keep = dense(keep_in),
             other_keep = dense(other_keep_in), coefficients = dense(coefficients_in),
             statistics = dense(statistics_in), other_statistics = dense(other_statistics_in);
  const Tensor sums = empty(z_t, ScalarType::Double, {4}), dgram_s = kept(want_s, z_t, wide(z_t), call.n, z_s.size(1)),
               dgram_t = kept(want_t, z_t, wide(z_t), call.n, z_t.size(1)),
               row_sums = call.row_sums ? empty(z_t, wide(z_t), {2, call.n}) : empty(z_t, wide(z_t), {0});
  PairProblem problem = {};
  problem.s = matrix(z_s);
  problem.t = matrix(z_t);
  if (call.rectangle) {
    problem.other_s = matrix(*other_s);
    problem.other_t = matrix(*other_t);
  }
  problem.offset = offset;
  problem.keep = static_cast<const bool*>(data_if(keep));
  problem.other_keep = static_cast<const bool*>(data_if(other_keep));
  problem.loss = call.kind;
  std::copy_n(call.parameters, kMostParameters, problem.parameters);
  problem.coefficients = data_if(coefficients);
  problem.statistics = data_if(statistics);
  problem.other_statistics = data_if(other_statistics);
  problem.dgram_s = result_if(dgram_s);
  problem.dgram_t = result_if(dgram_t);
  problem.row_sums = call.row_sums ? row_sums.mutable_data_ptr() : nullptr;
  kernels().gram(dtype_of(kLibrary, z_t), problem, static_cast<double*>(sums.mutable_data_ptr()));
  return {sums, dgram_s, dgram_t, row_sums};
}

}  // namespace
}  // namespace itrd

// For itrd_kernels/backends/native.py: the instruction set that was chosen; null where ITRD_CPU_ISA asks for one that
// this processor lacks.
#if defined(__GNUC__)
extern "C" __attribute__((visibility("default"))) const char* itrd_cpu_instruction_set() {
#else
extern "C" const char* itrd_cpu_instruction_set() {
#endif
  try {
    return itrd::kernels().name;
  } catch (...) {
    return nullptr;
  }
}

STABLE_TORCH_LIBRARY(itrd_cpu, m) {
  m.def(itrd::kForwardSchema);
  m.def(itrd::kBackwardSchema);
  m.def(itrd::kGramSchema);
}

STABLE_TORCH_LIBRARY_IMPL(itrd_cpu, CPU, m) {
  m.impl("forward", TORCH_BOX(&itrd::forward));
  m.impl("backward", TORCH_BOX(&itrd::backward));
  m.impl("gram", TORCH_BOX(&itrd::gram));
}
