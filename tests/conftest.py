"""Shared test settings: one torch thread, so that workers do not fight and results repeat.

No example of Hypothesis fails for having been slow: machines are busy.
"""

import os
import tempfile

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
# Notes about media that were looked at belong to this run and not to who runs it.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="lumoomni-tests-")
