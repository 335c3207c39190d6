"""Shared test settings: one torch thread, so that workers do not fight and results repeat."""

import torch

torch.set_num_threads(1)
