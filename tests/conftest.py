"""For every test: one thread, because tests run side by side, and no deadline for hypothesis on a busy machine."""

from __future__ import annotations

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("lasem", deadline=None, max_examples=30)
settings.load_profile("lasem")
