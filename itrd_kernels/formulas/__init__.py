"""The paper's formulas in plain PyTorch: readable, twice differentiable, what every backend is tested against.

One file a loss. Half-precision inputs are computed in float32. Equation numbers are those of the paper (BMVC 2022).
"""
