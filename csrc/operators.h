// What the operators of the CPU and of the CUDA library share: small helpers over PyTorch's stable ABI.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>
#include <tuple>

#include "matrix.h"

// What a function of PyTorch's C interface returned. Torch's own macro is there from 2.12 on, and from 2.13 on it alone
// knows what went wrong (no memory, mostly): an older torch has printed that by itself.
#ifdef STABLE_TORCH_ERROR_CODE_CHECK
#define ITRD_CHECK_CALL(call) STABLE_TORCH_ERROR_CODE_CHECK(call)
#else
#define ITRD_CHECK_CALL(call) STD_TORCH_CHECK((call) == AOTI_TORCH_SUCCESS, #call " failed")
#endif

namespace itrd {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The schemas of every backend, equal to those in itrd_kernels/schema.py.
constexpr const char* kForwardSchema =
    "forward(Tensor z_e, Tensor z_t, Tensor? z_s, float alpha, float beta_corr, float beta_mi, bool log, "
    "bool want_e, bool want_t, bool want_s, bool tf32) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)";
constexpr const char* kBackwardSchema =
    "backward(Tensor? g_total, Tensor? g_correlation, Tensor? g_mutual_information, "
    "Tensor z_e, Tensor z_t, Tensor? z_s, Tensor moments, Tensor dgram_s, Tensor dgram_t, "
    "float beta_corr, float beta_mi, bool want_e, bool want_t, bool want_s) -> (Tensor, Tensor, Tensor)";
constexpr const char* kGramSchema =
    "gram(Tensor z_s, Tensor z_t, Tensor? other_s, Tensor? other_t, int offset, Tensor? keep, Tensor? other_keep, "
    "str loss, float[] parameters, Tensor? coefficients, Tensor? statistics, Tensor? other_statistics, "
    "bool want_s, bool want_t, bool tf32) -> (Tensor, Tensor, Tensor, Tensor)";

using ForwardResult = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using BackwardResult = std::tuple<Tensor, Tensor, Tensor>;
using GramResult = std::tuple<Tensor, Tensor, Tensor, Tensor>;

// An uninitialised contiguous tensor on the device of `like`, without the detour through the dispatcher.
inline Tensor empty(const Tensor& like, ScalarType dtype, std::initializer_list<int64_t> sizes) {
  int64_t strides[2] = {1, 1};
  if (sizes.size() == 2) strides[0] = sizes.begin()[1];
  int32_t dtype_code, device_type;
  dtype_code = aoti_torch_dtype_float32();
  if (dtype == ScalarType::Double) dtype_code = aoti_torch_dtype_float64();
  if (dtype == ScalarType::BFloat16) dtype_code = aoti_torch_dtype_bfloat16();
  if (dtype == ScalarType::Half) dtype_code = aoti_torch_dtype_float16();
  ITRD_CHECK_CALL(aoti_torch_get_device_type(like.get(), &device_type));
  AtenTensorHandle handle;
  ITRD_CHECK_CALL(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.begin(), strides, dtype_code, device_type,
                                           like.get_device_index(), &handle));
  return Tensor(handle);
}

// Losses and saved gradients: float64 for float64 inputs, else float32.
inline ScalarType wide(const Tensor& z) {
  return z.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline Dtype dtype_of(const char* library, const Tensor& z) {
  switch (z.scalar_type()) {
    case ScalarType::Double:
      return Dtype::float64;
    case ScalarType::Float:
      return Dtype::float32;
    case ScalarType::BFloat16:
      return Dtype::bfloat16;
    case ScalarType::Half:
      return Dtype::float16;
    default:
      STD_TORCH_CHECK(false, library, ": inputs must be float16, bfloat16, float32 or float64");
  }
}

// Kernels do not write to features, whatever a Matrix allows.
inline Matrix matrix(const Tensor& z) {
  return {const_cast<void*>(z.const_data_ptr()), z.size(0), z.size(1), z.stride(0)};
}

// Columns must follow one another; rows may lie anywhere.
inline Tensor with_unit_columns(const Tensor& z) {
  return z.stride(1) == 1 || z.size(1) == 1 ? z : torch::stable::contiguous(z);
}

// What every operator demands of its inputs; `library` names who complains.
inline void check_pair(const char* library, const Tensor& z, const Tensor& z_t, bool same_width) {
  STD_TORCH_CHECK(z.dim() == 2 && z_t.dim() == 2 && z.size(0) == z_t.size(0) && z.size(0) >= 2 && z.size(1) >= 1 &&
                      z_t.size(1) >= 1 && z.scalar_type() == z_t.scalar_type() &&
                      z.get_device_index() == z_t.get_device_index() && (!same_width || z.size(1) == z_t.size(1)),
                  library, ": expected (n, d) inputs of one dtype on one device with n ≥ 2 and d ≥ 1");
}

inline void check_inputs(const char* library, const Tensor& z_e, const Tensor& z_t, const std::optional<Tensor>& z_s,
                         bool correlation) {
  check_pair(library, z_e, z_t, correlation);
  if (z_s.has_value()) check_pair(library, *z_s, z_t, false);
}

// A tensor that the forward pass saved: absent (empty), or contiguous (rows, columns) of the losses' dtype.
inline void check_saved(const char* library, const Tensor& saved, const Tensor& like, int64_t rows, int64_t columns) {
  if (saved.numel() == 0) return;
  STD_TORCH_CHECK(saved.dim() == 2 && saved.size(0) == rows && saved.size(1) == columns && saved.is_contiguous() &&
                      saved.scalar_type() == wide(like) && saved.get_device_index() == like.get_device_index(),
                  library, ": a saved tensor is not the one that forward returned for these inputs");
}

inline void check_upstream(const char* library, const std::optional<Tensor>& g, const Tensor& like) {
  STD_TORCH_CHECK(!g.has_value() || (g->numel() == 1 && g->scalar_type() == wide(like) &&
                                     g->get_device_index() == like.get_device_index()),
                  library, ": upstream gradients must be scalars of the loss");
}

// The gradient of z, to be written; empty where it is not wanted.
inline Tensor gradient_of(const Tensor& z, bool wanted) {
  return wanted ? empty(z, z.scalar_type(), {z.size(0), z.size(1)}) : empty(z, z.scalar_type(), {0});
}

}  // namespace itrd
