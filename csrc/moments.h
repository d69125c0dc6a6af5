// What the forward pass of the correlation loss leaves for its backward pass, row by row of `moments` (8, d); the rows
// stand in itrd_kernels/schema.py too, and a test compares the two.
#pragma once

namespace itrd {

// μ_s = high + low and 1/σ_s (0 marks a dead column), the same of z_t, v, ∂L_corr/∂v
enum Moment { kMeanS, kMeanLowS, kRstdS, kMeanT, kMeanLowT, kRstdT, kV, kDV, kMoments };

}  // namespace itrd
