"""Inputs that are known to be hard, tried first on every backend. A case that failed is pasted here, to stay."""

import torch
from inputs import Case, Features

F16, BF16, F64 = torch.float16, torch.bfloat16, torch.float64

CORRELATION = (
    # v = (n − 1)/n, the most that there is
    Case("correlation", 2, (Features(1), Features(1)), relation="equal", settings={"alpha": 1.5}),
    Case("correlation", 17, (Features(9), Features(9)), F64, "near", {"alpha": 300.0}),
    # every column is dead
    Case("correlation", 5, (Features(3, layout="one row"), Features(3)), settings={"alpha": 300.0}),
    # the row that columns are shifted by outweighs all others
    Case(
        "correlation", 33, (Features(2, outliers=((0, 0, 25), (0, 1, 25))), Features(2)), BF16, settings={"alpha": 1.5}
    ),
    # squares leave float32's range
    Case("correlation", 19, (Features(5, scale=30), Features(5, scale=-30)), settings={"alpha": 1.01}),
    # the ends of float16
    Case("correlation", 16, (Features(8, scale=4), Features(8, scale=-6)), F16, settings={"alpha": 1.5}),
)
GRAM = (
    # no rows but zeros, no pair of rows in which neither is
    Case("mutual_information", 2, (Features(1, zero_rows=(0, 1)), Features(2)), settings={"log": True}),
    Case(
        "mutual_information", 3, (Features(4, zero_rows=(0,)), Features(2, zero_rows=(1, 2))), settings={"log": False}
    ),
    # a row counts for the student and not for the pair
    Case("mutual_information", 5, (Features(4), Features(2, zero_rows=(1,))), settings={"log": False}),
    # all cosines are 1
    Case("mutual_information", 7, (Features(5, layout="one row"), Features(3)), BF16, settings={"log": False}),
    Case("mutual_information", 33, (Features(17, row_scales=30), Features(35, scale=-30)), settings={"log": True}),
    Case("mutual_information", 20, (Features(8, scale=4), Features(6, row_scales=6)), F16, settings={"log": False}),
    # gradients that are below float32's range until the upstream factor comes
    Case("mutual_information", 94, (Features(1), Features(209, scale=30)), settings={"log": False}, upstream=2.0**16),
    # a student that is its teacher, read across
    Case("mutual_information", 17, (Features(33, layout="transposed"), Features(33)), F64, "equal", {"log": False}),
)
ITRD = (
    Case("itrd", 2, (Features(1), Features(1)), settings={"alpha": 0.3, "betas": (2.0, 1.0), "log": False}),
    # the student's own features are of another width, and nobody wants the embedded ones' gradient
    Case(
        "itrd",
        9,
        (Features(4, layout="steps"), Features(4, dead_columns=(3,)), Features(7, zero_rows=(8,))),
        want=(False, True, True),
        settings={"alpha": 1.5, "betas": (2.0, 1.0), "log": True},
    ),
    # one term alone leaves an input unread
    Case(
        "itrd", 5, (Features(3), Features(4), Features(2)), settings={"alpha": 1.5, "betas": (0.0, 1.0), "log": False}
    ),
)
POLYNOMIAL = (
    # no pair of rows in which neither is zero
    Case(
        "polynomial",
        3,
        (Features(4, zero_rows=(0,)), Features(2, zero_rows=(1, 2))),
        settings={"kernel": (1.0, 2), "log": True},
    ),
    # a zero row, whose cosine 0 is no zero of the kernel
    Case("polynomial", 5, (Features(4), Features(2, zero_rows=(1,))), settings={"kernel": (0.5, 3), "log": False}),
    Case("polynomial", 33, (Features(17, row_scales=30), Features(35)), settings={"kernel": (1.0, 2), "log": False}),
    Case("polynomial", 9, (Features(3), Features(3)), F64, "opposite", {"kernel": (0.0, 1), "log": False}),
)
PKT = (
    # cosines of −1, whose probability is 0
    Case("pkt", 7, (Features(1), Features(1)), settings={"eps": 1e-7}),
    Case("pkt", 2, (Features(3), Features(3)), F64, "opposite", {"eps": 1e-7}),
    # a student that is nearly its teacher: what is left is a millionth of what cancels
    Case("pkt", 40, (Features(20), Features(20)), relation="near", settings={"eps": 1e-7}),
    # zero rows count, and get no gradient
    Case("pkt", 5, (Features(4, zero_rows=(1,)), Features(2, zero_rows=(0, 1))), settings={"eps": 1e-5}),
    Case("pkt", 3, (Features(2, zero_rows=(0, 1, 2)), Features(2)), settings={"eps": 1e-7}),
    Case("pkt", 33, (Features(17, row_scales=30), Features(35, scale=-30)), settings={"eps": 1e-7}),
    Case("pkt", 20, (Features(8, scale=4), Features(6, row_scales=6)), F16, settings={"eps": 1e-7}),
    # cosines of 1 and −1 but for a hair, where the formula in float64 itself loses digits
    Case("pkt", 27, (Features(2), Features(2, column_scales=6)), F64, settings={"eps": 1e-7}),
    Case("pkt", 14, (Features(9), Features(2, column_scales=4)), F64, settings={"eps": 1e-5}),
)
DELICATE = {
    "correlation": CORRELATION,
    "mutual_information": GRAM,
    "polynomial": POLYNOMIAL,
    "pkt": PKT,
    "itrd": ITRD,
}
