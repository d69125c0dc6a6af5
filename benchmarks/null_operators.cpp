// Operators of the schemas and outputs of the CPU backend that compute nothing: what is left of a step without its
// kernels. The total comes back as NaN, so that nobody takes it for a loss.
#include <cmath>

#include "moments.h"
#include "operators.h"

namespace itrd {
namespace {

Tensor empty_if(const Tensor& z, ScalarType dtype, int64_t rows, int64_t columns, bool wanted) {
  return wanted ? empty(z, dtype, {rows, columns}) : empty(z, dtype, {0});
}

ForwardResult forward(const Tensor& z_e, const Tensor& z_t, const std::optional<Tensor>& z_s, double, double beta_corr,
                      double beta_mi, bool, bool want_e, bool want_t, bool want_s, bool) {
  const Tensor& gram_input = z_s.has_value() ? *z_s : z_e;
  const bool want_gram = z_s.has_value() ? want_s : want_e;
  const auto dtype = wide(z_t);
  Tensor total = empty(z_t, dtype, {});
  *static_cast<float*>(total.mutable_data_ptr()) = NAN;
  return {total,
          empty(z_t, dtype, {}),
          empty(z_t, dtype, {}),
          empty_if(z_t, dtype, kMoments, z_t.size(1), beta_corr != 0 && (want_e || want_t)),
          empty_if(z_t, dtype, z_t.size(0), gram_input.size(1), beta_mi != 0 && want_gram),
          empty_if(z_t, dtype, z_t.size(0), z_t.size(1), beta_mi != 0 && want_t)};
}

BackwardResult backward(const std::optional<Tensor>&, const std::optional<Tensor>&, const std::optional<Tensor>&,
                        const Tensor& z_e, const Tensor& z_t, const std::optional<Tensor>& z_s, const Tensor&,
                        const Tensor&, const Tensor&, double, double, bool want_e, bool want_t, bool want_s) {
  auto like = [](const Tensor& z, bool wanted) { return empty_if(z, z.scalar_type(), z.size(0), z.size(1), wanted); };
  return {like(z_e, want_e), like(z_t, want_t), like(z_s.has_value() ? *z_s : z_t, z_s.has_value() && want_s)};
}

}  // namespace
}  // namespace itrd

STABLE_TORCH_LIBRARY(itrd_null, m) {
  m.def(itrd::kForwardSchema);
  m.def(itrd::kBackwardSchema);
}

STABLE_TORCH_LIBRARY_IMPL(itrd_null, CPU, m) {
  m.impl("forward", TORCH_BOX(&itrd::forward));
  m.impl("backward", TORCH_BOX(&itrd::backward));
}
