"""These tests need Triton's interpreter, chosen before Triton is imported: ../test_interpreter.py starts them."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

if os.environ.get("TRITON_INTERPRET") != "1":
    collect_ignore_glob = ["test_*.py"]
