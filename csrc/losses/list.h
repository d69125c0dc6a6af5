// The pair losses of the operator `gram`: a line each, and a file of its own beside this one. Free of torch.
#pragma once

// X(type, name, numbers that it takes, whether it is one-sided)
//
// A one-sided loss is ℓ_ij + ℓ_ji of two rows that have statistics of their own; it is asked once for each, and has row
// sums. Any other loss is asked once for both rows, and has none.
#define ITRD_PAIR_LOSSES(X)                            \
  X(MutualInformation, "mutual_information", 0, false) \
  X(Polynomial, "polynomial", 2, false)                \
  X(Pkt, "pkt", 2, true)

namespace itrd {

#define ITRD_PAIR_LOSS_KIND(type, name, parameters, one_sided) type,
enum class PairLossKind { ITRD_PAIR_LOSSES(ITRD_PAIR_LOSS_KIND) };
#undef ITRD_PAIR_LOSS_KIND

struct PairLossTraits {
  const char* name;
  int parameters;
  bool one_sided;
};

// In the order of PairLossKind.
#define ITRD_PAIR_LOSS_TRAITS(type, name, parameters, one_sided) {name, parameters, one_sided},
constexpr PairLossTraits kPairLosses[] = {ITRD_PAIR_LOSSES(ITRD_PAIR_LOSS_TRAITS)};
#undef ITRD_PAIR_LOSS_TRAITS

constexpr int kMostParameters = 2;

}  // namespace itrd
