// The operators itrd_cuda::forward, itrd_cuda::backward and itrd_cuda::gram: checks, allocation, device and stream.
//
// With ITRD_CUDA_ON_HOST the same file registers the kernels' host build (tests/cuda_on_host) for CPU tensors.
#ifndef ITRD_CUDA_ON_HOST
#define USE_CUDA  // PyTorch's header then declares aoti_torch_get_current_cuda_stream
#endif

#include "../operators.h"

#include <algorithm>
#include <array>
#include <cstdlib>

#include "../gram_operator.h"
#include "interface.h"

#ifndef ITRD_CUDA_ON_HOST
#include <torch/csrc/stable/accelerator.h>
#endif

namespace itrd {
namespace {

constexpr const char* kLibrary = "itrd_cuda";

#ifdef ITRD_CUDA_ON_HOST

#define ITRD_DISPATCH_KEY CPU

struct Device {
  explicit Device(const Tensor&) {}
  cudaStream_t stream = nullptr;
  // Tests can try the choice of kernels for any architecture.
  int capability() const {
    const char* asked = std::getenv("ITRD_EMULATED_CAPABILITY");
    return asked ? std::atoi(asked) : 80;
  }
};

#else

#define ITRD_DISPATCH_KEY CUDA

// Makes the tensor's device current for as long as it lives, and knows the stream that PyTorch uses there.
struct Device {
  int index;
  torch::stable::accelerator::DeviceGuard guard;
  cudaStream_t stream;

  explicit Device(const Tensor& z) : index(z.get_device_index()), guard(index) {
    void* current = nullptr;
    ITRD_CHECK_CALL(aoti_torch_get_current_cuda_stream(index, &current));
    stream = static_cast<cudaStream_t>(current);
  }
  int capability() const {
    int major = 0, minor = 0;
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, index);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, index);
    return 10 * major + minor;
  }
};

#endif

void check_launches() {
  cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, "itrd_cuda: ", cudaGetErrorString(error),
                  "; if this GPU is newer or older than those the library was built for, rebuild it with "
                  "TORCH_CUDA_ARCH_LIST naming its architecture");
}

void check_sizes(int64_t n, int64_t widest) {
  STD_TORCH_CHECK(n < (1 << 30) && widest < (1 << 30), kLibrary, ": n and d must be below 2³⁰");
}

void check(const Tensor& z_e, const Tensor& z_t, const std::optional<Tensor>& z_s, bool correlation) {
  check_inputs(kLibrary, z_e, z_t, z_s, correlation);
  check_sizes(z_t.size(0), std::max({z_e.size(1), z_t.size(1), z_s.has_value() ? z_s->size(1) : 0}));
}

// Null stands for what is absent, or empty.
const void* data(const std::optional<Tensor>& z) { return z.has_value() ? z->const_data_ptr() : nullptr; }
void* data_if(const Tensor& z) { return z.numel() ? z.mutable_data_ptr() : nullptr; }

// Allocates once for all parts that the kernels asked for; `workspace` points into the tensor that is returned.
Tensor allocate(const Tensor& like, const WorkspaceBytes& bytes, Workspace& workspace) {
  constexpr size_t kAlignment = 256;
  struct Part {
    size_t bytes;
    void** pointer;
  };
  std::array<Part, 12> parts = {{{bytes.ticket, &workspace.ticket},
                                 {bytes.partials, &workspace.partials},
                                 {bytes.norms, &workspace.norms},
                                 {bytes.statistics, &workspace.statistics},
                                 {bytes.counts, &workspace.counts},
                                 {bytes.losses, &workspace.losses},
                                 {bytes.coefficients, &workspace.coefficients},
                                 {bytes.weights_s, &workspace.weights_s},
                                 {bytes.weights_t, &workspace.weights_t},
                                 {bytes.partial_projection_s, &workspace.partial_projection_s},
                                 {bytes.partial_projection_t, &workspace.partial_projection_t},
                                 {bytes.partial_row_sums, &workspace.partial_row_sums}}};
  auto rounded = [](const Part& part) { return (part.bytes + kAlignment - 1) / kAlignment * kAlignment; };
  size_t total = kAlignment;
  for (const Part& part : parts) total += rounded(part);
  Tensor memory = empty(like, ScalarType::Float, {int64_t(total / sizeof(float))});
  auto address = (reinterpret_cast<uintptr_t>(memory.mutable_data_ptr()) + kAlignment - 1) / kAlignment * kAlignment;
  for (const Part& part : parts) {
    *part.pointer = part.bytes ? reinterpret_cast<void*>(address) : nullptr;
    address += rounded(part);
  }
  return memory;
}

ForwardResult forward_operator(const Tensor& z_e_in, const Tensor& z_t_in, const std::optional<Tensor>& z_s_in,
                               double alpha, double beta_corr, double beta_mi, bool log, bool want_e, bool want_t,
                               bool want_s, bool tf32) {
  check(z_e_in, z_t_in, z_s_in, beta_corr != 0);
  Device device(z_t_in);
  const Tensor z_e = with_unit_columns(z_e_in), z_t = with_unit_columns(z_t_in);
  const Tensor z_s = z_s_in.has_value() ? with_unit_columns(*z_s_in) : z_e;
  const int64_t n = z_t.size(0), d_t = z_t.size(1);
  const bool want_dgram_s = beta_mi != 0 && (z_s_in.has_value() ? want_s : want_e);

  Tensor total = empty(z_t, wide(z_t), {}), correlation = empty(z_t, wide(z_t), {});
  Tensor mutual_information = empty(z_t, wide(z_t), {});
  const bool moments_saved = beta_corr != 0 && (want_e || want_t);
  const Tensor nothing = empty(z_t, wide(z_t), {0});
  // The forward pass needs them itself, saved or not.
  Tensor moments = beta_corr != 0 ? empty(z_t, wide(z_t), {kMoments, d_t}) : nothing;
  Tensor dgram_s = want_dgram_s ? empty(z_t, wide(z_t), {n, z_s.size(1)}) : empty(z_t, wide(z_t), {0});
  Tensor dgram_t = beta_mi != 0 && want_t ? empty(z_t, wide(z_t), {n, d_t}) : empty(z_t, wide(z_t), {0});

  ForwardProblem problem = {};
  problem.dtype = dtype_of(kLibrary, z_t);
  problem.n = int(n);
  problem.e = matrix(z_e);
  problem.t = matrix(z_t);
  problem.s = matrix(z_s);
  problem.alpha = alpha;
  problem.beta_corr = beta_corr;
  problem.beta_mi = beta_mi;
  problem.log = log;
  problem.tf32 = tf32;
  problem.capability = device.capability();
  problem.total = total.mutable_data_ptr();
  problem.correlation = correlation.mutable_data_ptr();
  problem.mutual_information = mutual_information.mutable_data_ptr();
  problem.moments = data_if(moments);
  problem.dgram_s = data_if(dgram_s);
  problem.dgram_t = data_if(dgram_t);
  Workspace workspace;
  const Tensor memory = allocate(z_t, workspace_bytes(problem), workspace);
  forward(problem, workspace, device.stream);
  check_launches();
  return {total, correlation, mutual_information, moments_saved ? moments : nothing, dgram_s, dgram_t};
}

BackwardResult backward_operator(const std::optional<Tensor>& g_total, const std::optional<Tensor>& g_correlation,
                                 const std::optional<Tensor>& g_mutual_information, const Tensor& z_e_in,
                                 const Tensor& z_t_in, const std::optional<Tensor>& z_s, const Tensor& moments,
                                 const Tensor& dgram_s, const Tensor& dgram_t, double beta_corr, double beta_mi,
                                 bool want_e, bool want_t, bool want_s) {
  check(z_e_in, z_t_in, z_s, moments.dim() == 2);
  const Tensor& gram_input = z_s.has_value() ? *z_s : z_e_in;
  check_saved(kLibrary, moments, z_t_in, kMoments, z_t_in.size(1));
  check_saved(kLibrary, dgram_s, z_t_in, gram_input.size(0), gram_input.size(1));
  check_saved(kLibrary, dgram_t, z_t_in, z_t_in.size(0), z_t_in.size(1));
  for (const auto* g : {&g_total, &g_correlation, &g_mutual_information}) check_upstream(kLibrary, *g, z_t_in);
  Device device(z_t_in);
  const Tensor z_e = with_unit_columns(z_e_in), z_t = with_unit_columns(z_t_in);
  Tensor grad_e = gradient_of(z_e, want_e), grad_t = gradient_of(z_t, want_t);
  Tensor grad_s = z_s.has_value() ? gradient_of(*z_s, want_s) : gradient_of(z_t, false);

  BackwardProblem problem = {};
  problem.dtype = dtype_of(kLibrary, z_t);
  problem.n = int(z_t.size(0));
  problem.e = matrix(z_e);
  problem.t = matrix(z_t);
  problem.g_total = data(g_total);
  problem.g_correlation = data(g_correlation);
  problem.g_mutual_information = data(g_mutual_information);
  problem.beta_corr = beta_corr;
  problem.beta_mi = beta_mi;
  problem.moments = data_if(moments);
  problem.dgram_s = data_if(dgram_s);
  problem.dgram_t = data_if(dgram_t);
  problem.grad_e = data_if(grad_e);
  problem.grad_t = data_if(grad_t);
  problem.grad_s = data_if(grad_s);
  problem.width_e = int(z_e.size(1));
  problem.width_t = int(z_t.size(1));
  problem.width_s = z_s.has_value() ? int(z_s->size(1)) : 0;
  problem.gram_on_e = !z_s.has_value();
  backward(problem, device.stream);
  check_launches();
  return {grad_e, grad_t, grad_s};
}

// The sums, the gradients and the row sums, to be written; empty where they are not wanted.
GramResult gram_outputs(const GramArguments& x, const GramCall& call) {
  const ScalarType type = wide(x.z_t);
  auto if_wanted = [&](bool wanted, int64_t rows, int64_t columns) {
    return wanted ? empty(x.z_t, type, {rows, columns}) : empty(x.z_t, type, {0});
  };
  return {empty(x.z_t, ScalarType::Double, {4}), if_wanted(x.want_s, call.n, x.z_s.size(1)),
          if_wanted(x.want_t, call.n, x.z_t.size(1)), if_wanted(call.row_sums, 2, call.n)};
}

GramResult gram_operator(const Tensor& z_s_in, const Tensor& z_t_in, const std::optional<Tensor>& other_s_in,
                         const std::optional<Tensor>& other_t_in, int64_t offset, const std::optional<Tensor>& keep_in,
                         const std::optional<Tensor>& other_keep_in, const std::string& loss,
                         const std::vector<double>& parameters, const std::optional<Tensor>& coefficients_in,
                         const std::optional<Tensor>& statistics_in, const std::optional<Tensor>& other_statistics_in,
                         bool want_s, bool want_t, bool tf32) {
  const GramArguments arguments = {
      z_s_in,     z_t_in,          other_s_in,    other_t_in,          offset, keep_in, other_keep_in, loss,
      parameters, coefficients_in, statistics_in, other_statistics_in, want_s, want_t};
  const GramCall call = check_gram(kLibrary, arguments, false);
  check_sizes(std::max(call.n, call.columns), std::max(z_s_in.size(1), z_t_in.size(1)));
  Device device(z_t_in);
  const Tensor z_s = with_unit_columns(z_s_in), z_t = with_unit_columns(z_t_in);
  const Tensor other_s = call.rectangle ? with_unit_columns(*other_s_in) : z_s;
  const Tensor other_t = call.rectangle ? with_unit_columns(*other_t_in) : z_t;
  const std::optional<Tensor> keep = dense(keep_in), other_keep = call.rectangle ? dense(other_keep_in) : keep;
  const std::optional<Tensor> coefficients = dense(coefficients_in);
  auto rows = [](const std::optional<Tensor>& given) -> std::optional<Tensor> {
    return given.has_value() ? std::optional(with_unit_columns(*given)) : given;
  };
  const std::optional<Tensor> statistics = rows(statistics_in);
  const std::optional<Tensor> other_statistics = call.rectangle ? rows(other_statistics_in) : statistics;
  GramResult result = gram_outputs(arguments, call);
  auto& [sums, dgram_s, dgram_t, row_sums] = result;

  PairProblem problem = {};
  problem.dtype = dtype_of(kLibrary, z_t);
  problem.s = matrix(z_s);
  problem.t = matrix(z_t);
  problem.other_s = matrix(other_s);
  problem.other_t = matrix(other_t);
  problem.rectangle = call.rectangle;
  problem.offset = int(offset);
  problem.keep = static_cast<const bool*>(data(keep));
  problem.other_keep = static_cast<const bool*>(data(other_keep));
  problem.kind = call.kind;
  std::copy(std::begin(call.parameters), std::end(call.parameters), problem.parameters);
  problem.coefficients = data(coefficients);
  if (statistics.has_value()) problem.statistics = matrix(*statistics);
  if (other_statistics.has_value()) problem.other_statistics = matrix(*other_statistics);
  problem.tf32 = tf32;
  problem.capability = device.capability();
  problem.sums = static_cast<double*>(sums.mutable_data_ptr());
  problem.dgram_s = data_if(dgram_s);
  problem.dgram_t = data_if(dgram_t);
  problem.row_sums = data_if(row_sums);
  Workspace workspace;
  const Tensor memory = allocate(z_t, workspace_bytes(problem), workspace);
  gram(problem, workspace, device.stream);
  check_launches();
  return result;
}

}  // namespace
}  // namespace itrd

STABLE_TORCH_LIBRARY(itrd_cuda, m) {
  m.def(itrd::kForwardSchema);
  m.def(itrd::kBackwardSchema);
  m.def(itrd::kGramSchema);
}

STABLE_TORCH_LIBRARY_IMPL(itrd_cuda, ITRD_DISPATCH_KEY, m) {
  m.impl("forward", TORCH_BOX(&itrd::forward_operator));
  m.impl("backward", TORCH_BOX(&itrd::backward_operator));
  m.impl("gram", TORCH_BOX(&itrd::gram_operator));
}
