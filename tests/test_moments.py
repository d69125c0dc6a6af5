"""The rows of `moments`, which csrc/moments.h and itrd_kernels/schema.py both list."""

import re
from pathlib import Path

from itrd_kernels.schema import MOMENT_ROWS

HEADER = Path(__file__).parent.parent / "csrc" / "moments.h"


def test_rows_are_those_of_the_native_libraries():
    [names] = re.findall(r"enum Moment \{([^}]*)\}", HEADER.read_text(encoding="utf-8"))
    *rows, number = names.split(",")
    assert number.strip() == "kMoments"
    assert [row.strip().lower() for row in rows] == ["k" + row.replace("_", "") for row in MOMENT_ROWS]
