// The table of the kernels of one instruction set, which the unit of that instruction set includes last.
#pragma once

#include "cpu/backward.h"
#include "cpu/correlation/loss.h"
#include "cpu/gram/direct.h"
#include "cpu/gram/packed.h"
#include "cpu/gram/pairs.h"
#ifdef ITRD_AMX
#include "cpu/gram/amx.h"
#endif

namespace itrd::ITRD_ISA {

// The mutual-information loss, by the fastest of the Gram engines that is accurate for these inputs.
template <class T>
double gram_forward(const GramProblem& problem) {
#ifdef ITRD_AMX
  if constexpr (!std::is_same_v<T, double>)
    if (work(problem) >= kWorthAmx && std::min(problem.s.columns, problem.t.columns) >= kPanel) {
      AmxGram<T> engine(problem);
      engine.prepare();
      if (engine.accurate()) return run_gram(engine);
    }
#endif
  if constexpr (std::is_same_v<T, Wide<T>>)
    if (DirectGram<T>::suits(problem)) {
      DirectGram<T> engine(problem);
      engine.prepare();
      if (engine.ordinary()) return run_gram(engine);
    }
  PackedGram<T> engine(problem);
  engine.prepare();
  return run_gram(engine);
}

// The name of the instruction set as a string: a macro's value is put in place before it is quoted.
#define ITRD_QUOTED_AS_IS(x) #x
#define ITRD_QUOTED(x) ITRD_QUOTED_AS_IS(x)

// f(T) for the type that `dtype` names.
template <class F>
auto with_dtype(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::float64:
      return f(double());
    case Dtype::bfloat16:
      return f(BFloat16());
    case Dtype::float16:
      return f(Half());
    default:
      return f(float());
  }
}

const Kernels& kernels() {
  static const Kernels table{
      ITRD_QUOTED(ITRD_ISA),
      [](Dtype dtype, const Matrix& s, const Matrix& t, double alpha, void* moments) {
        return with_dtype(dtype, [&](auto x) { return correlation_forward<decltype(x)>(s, t, alpha, moments); });
      },
      [](Dtype dtype, const GramProblem& problem) {
        return with_dtype(dtype, [&](auto x) { return gram_forward<decltype(x)>(problem); });
      },
      [](Dtype dtype, const PairProblem& problem, double* sums) {
        with_dtype(dtype, [&](auto x) { PairGram<decltype(x)>(problem).run(sums); });
      },
      [](Dtype dtype, const BackwardProblem& problem) {
        with_dtype(dtype, [&](auto x) { backward<decltype(x)>(problem); });
      },
  };
  return table;
}

}  // namespace itrd::ITRD_ISA
