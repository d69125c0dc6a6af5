// Stands in for CUDA's own header.
#pragma once

#include "cuda_runtime.h"

struct __half {
  uint16_t bits;
};

inline float __half2float(__half h) {
  // The exponent moves by 127 − 15; the multiplication also brings subnormal numbers right.
  uint32_t magnitude = uint32_t(h.bits & 0x7fff) << 13, sign = uint32_t(h.bits & 0x8000) << 16;
  if (magnitude >= 0x0f800000u) return __uint_as_float(sign | 0x7f800000u | magnitude);
  return __uint_as_float(sign | __float_as_uint(__uint_as_float(magnitude) * 0x1p112f));
}

inline __half __float2half_rn(float x) {
  uint32_t bits = __float_as_uint(x), magnitude = bits & 0x7fffffff;
  uint16_t sign = uint16_t(bits >> 16 & 0x8000);
  if (magnitude > 0x7f800000u) return {uint16_t(sign | 0x7fff)};
  if (magnitude >= 0x477ff000u) return {uint16_t(sign | 0x7c00)};
  // Below 2⁻¹⁴ the addition of ½ leaves multiples of 2⁻²⁴, rounded to nearest even.
  if (magnitude < 0x38800000u)
    return {uint16_t(sign | (__float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000u))};
  return {uint16_t(sign | ((magnitude - 0x38000000u + 0xfff + (magnitude >> 13 & 1)) >> 13))};
}
