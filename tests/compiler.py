"""The mark of tests that `torch.compile` on a CPU."""

import shutil
import sysconfig
from pathlib import Path

import pytest

HEADER = Path(sysconfig.get_path("include")) / "Python.h"
needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None or not HEADER.is_file(),
    reason="torch.compile needs a C++ compiler and Python's headers",
)
