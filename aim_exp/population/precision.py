"""In which dtype a training multiplies."""

import torch


def has_quick_bfloat16() -> bool:
    """Whether torch multiplies bfloat16 as quickly as float32 on this processor.

    Where there is no AVX-512 it works one number at a time, twenty times as slow or more.
    """
    return "AVX512" in torch.backends.cpu.get_cpu_capability()
