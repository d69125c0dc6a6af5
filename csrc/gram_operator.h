// What both libraries do alike in the operator `gram` before their sweeps: the loss by its name, and checks.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "losses/list.h"
#include "operators.h"

namespace itrd {

// The operator's arguments, as they come from outside.
struct GramArguments {
  const Tensor &z_s, &z_t;
  const std::optional<Tensor>&other_s, &other_t;
  int64_t offset;
  const std::optional<Tensor>&keep, &other_keep;
  const std::string& loss;
  const std::vector<double>& parameters;
  const std::optional<Tensor>&coefficients, &statistics, &other_statistics;
  bool want_s, want_t;
};

// What follows from arguments that fit.
struct GramCall {
  PairLossKind kind;
  double parameters[kMostParameters] = {};  // 0 beyond those that the loss takes
  bool rectangle;                           // own rows × other rows; else each pair of own rows once
  int64_t n, columns;                       // own rows, column rows
  bool row_sums;                            // whether they are returned
};

inline PairLossKind pair_loss_of(const char* library, const std::string& name) {
  int kind = 0;
  for (const PairLossTraits& loss : kPairLosses) {
    if (name == loss.name) return PairLossKind(kind);
    ++kind;
  }
  STD_TORCH_CHECK(false, library, ": loss must be the name of a pair loss, got ", name);
}

// Absent, or a tensor of this type on the features' device that has these sizes.
inline void check_beside(const char* library, const char* name, const std::optional<Tensor>& x, const Tensor& like,
                         ScalarType type, std::initializer_list<int64_t> sizes) {
  if (!x.has_value()) return;
  bool fits =
      x->dim() == int64_t(sizes.size()) && x->scalar_type() == type && x->get_device_index() == like.get_device_index();
  for (size_t i = 0; fits && i < sizes.size(); ++i) fits = x->size(int64_t(i)) == sizes.begin()[i];
  STD_TORCH_CHECK(fits, library, ": ", name, " has another shape or dtype than the rows demand, or another device");
}

// `forms_statistics`: whether the library takes the statistics of own rows among themselves from those rows, where none
// are given (itrd_kernels/backends/base.py).
inline GramCall check_gram(const char* library, const GramArguments& x, bool forms_statistics) {
  GramCall call = {};
  call.kind = pair_loss_of(library, x.loss);
  const PairLossTraits& traits = kPairLosses[int(call.kind)];
  STD_TORCH_CHECK(int64_t(x.parameters.size()) == traits.parameters, library, ": parameters of ", x.loss, " must be ",
                  traits.parameters, " numbers, got ", x.parameters.size());
  for (size_t k = 0; k < x.parameters.size(); ++k) call.parameters[k] = x.parameters[k];

  auto same_kind = [](const Tensor& a, const Tensor& b) {
    return a.dim() == 2 && b.dim() == 2 && a.scalar_type() == b.scalar_type() &&
           a.get_device_index() == b.get_device_index();
  };
  STD_TORCH_CHECK(same_kind(x.z_s, x.z_t) && x.z_s.size(0) == x.z_t.size(0) && x.z_s.size(1) >= 1 && x.z_t.size(1) >= 1,
                  library, ": z_s and z_t must be (n, d) rows of one dtype on one device with d ≥ 1");
  call.n = call.columns = x.z_t.size(0);
  call.rectangle = x.other_s.has_value();
  STD_TORCH_CHECK(call.rectangle == x.other_t.has_value(), library, ": other_s and other_t go together");
  if (call.rectangle) {
    STD_TORCH_CHECK(same_kind(*x.other_s, x.z_s) && same_kind(*x.other_t, x.z_t) &&
                        x.other_s->size(1) == x.z_s.size(1) && x.other_t->size(1) == x.z_t.size(1) &&
                        x.other_s->size(0) == x.other_t->size(0) && x.other_s->size(0) >= 1,
                    library, ": other_s and other_t must be rows as wide as those of z, one or more");
    call.columns = x.other_t->size(0);
    STD_TORCH_CHECK(0 <= x.offset && x.offset <= call.columns - call.n, library, ": offset ", x.offset,
                    " does not place ", call.n, " own rows among ", call.columns, " other rows");
  } else {
    STD_TORCH_CHECK(call.n >= 1, library, ": without other rows z must have a row");
    STD_TORCH_CHECK(!x.other_keep.has_value() && !x.other_statistics.has_value() && x.offset == 0, library,
                    ": other_keep, other_statistics and an offset belong to other rows");
  }

  const ScalarType type = wide(x.z_t);
  check_beside(library, "keep", x.keep, x.z_t, ScalarType::Bool, {call.n});
  check_beside(library, "other_keep", x.other_keep, x.z_t, ScalarType::Bool, {call.columns});
  check_beside(library, "coefficients", x.coefficients, x.z_t, type, {2});
  // A loss without row sums asks for no more than whether a row is zero.
  const bool formed = traits.one_sided && forms_statistics && !call.rectangle && !x.statistics.has_value();
  STD_TORCH_CHECK(formed || (x.statistics.has_value() == traits.one_sided &&
                             x.other_statistics.has_value() == (traits.one_sided && call.rectangle)),
                  library, ": statistics of own and of other rows belong to the losses that take them, got ", x.loss);
  check_beside(library, "statistics", x.statistics, x.z_t, type, {2, call.n});
  check_beside(library, "other_statistics", x.other_statistics, x.z_t, type, {2, call.columns});
  call.row_sums = x.statistics.has_value() && (x.want_s || x.want_t);
  return call;
}

// What kernels read in place: elements of a vector next to one another.
inline std::optional<Tensor> dense(const std::optional<Tensor>& x) {
  return x.has_value() && x->numel() > 1 && x->stride(0) != 1 ? torch::stable::contiguous(*x) : x;
}

}  // namespace itrd
