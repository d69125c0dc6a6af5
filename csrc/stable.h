// Small helpers over PyTorch's stable ABI, shared by the CPU and the CUDA library.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <optional>
#include <tuple>

namespace itrd {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The schemas of every backend, equal to those in itrd_kernels/ops.py.
constexpr const char* FORWARD_SCHEMA =
    "forward(Tensor z_e, Tensor z_t, Tensor? z_s, float alpha, float beta_corr, float beta_mi, bool log, "
    "bool want_e, bool want_t, bool want_s, bool tf32) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)";
constexpr const char* BACKWARD_SCHEMA =
    "backward(Tensor? g_total, Tensor? g_correlation, Tensor? g_mutual_information, "
    "Tensor z_e, Tensor z_t, Tensor? z_s, Tensor moments, Tensor dgram_s, Tensor dgram_t, "
    "float beta_corr, float beta_mi, bool want_e, bool want_t, bool want_s) -> (Tensor, Tensor, Tensor)";

using ForwardResult = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;
using BackwardResult = std::tuple<Tensor, Tensor, Tensor>;

// An uninitialised contiguous tensor on the device of `like`, without the detour through the dispatcher.
inline Tensor empty(const Tensor& like, ScalarType dtype, std::initializer_list<int64_t> sizes) {
  int64_t strides[2] = {1, 1};
  if (sizes.size() == 2) strides[0] = sizes.begin()[1];
  int32_t dtype_code, device_type;
  dtype_code = aoti_torch_dtype_float32();
  if (dtype == ScalarType::Double) dtype_code = aoti_torch_dtype_float64();
  if (dtype == ScalarType::BFloat16) dtype_code = aoti_torch_dtype_bfloat16();
  if (dtype == ScalarType::Half) dtype_code = aoti_torch_dtype_float16();
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(int64_t(sizes.size()), sizes.begin(), strides, dtype_code,
                                                         device_type, like.get_device_index(), &handle));
  return Tensor(handle);
}

// Losses and saved gradients: float64 for float64 inputs, else float32.
inline ScalarType wide(const Tensor& z) {
  return z.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

// Columns must follow one another; rows may lie anywhere.
inline Tensor with_unit_columns(const Tensor& z) {
  return z.stride(1) == 1 || z.size(1) == 1 ? z : torch::stable::contiguous(z);
}

}  // namespace itrd
