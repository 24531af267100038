"""Random masks that are a function of (seed, expert, tensor, index of the element) alone.

A counter-based generator, SplitMix64 (Steele et al. 2014) of the index, four 16-bit draws to
a word: no state, so neither order nor blocks nor threads nor the device change a mask.
`keep_mask` is its definition, in integer operations that every device computes alike;
`keep_bytes` computes the same in place on a CPU, two to three times as fast.
"""

import hashlib
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aim_exp.tensors.scratch import Scratch

_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_LANES = 4  # 16-bit draws in a 64-bit word


def stream_key(seed: int, expert: str, tensor: str) -> int:
    """The key of the stream of one tensor of one expert, a signed 64-bit integer."""
    digest = hashlib.sha256(f"{seed}\n{expert}\n{tensor}".encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def keep_mask(
    key: int, first: int, count: int, density: float, device: torch.device | str = "cpu"
) -> Tensor:
    """Whether elements `first` .. `first + count` of stream `key` stay: bool [count]."""
    return draws(key, first, count, device) < _limit(density)


def draws(key: int, first: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Elements `first` .. `first + count` of stream `key`: uniform int16 [count]."""
    end = (first + count - 1) // _LANES + 1
    words = torch.arange(first // _LANES, end, dtype=torch.int64, device=device)
    words.mul_(_signed(_GOLDEN_GAMMA)).add_(key)
    words.bitwise_xor_(_logical_shift(words, 30)).mul_(_signed(_MIX_1))
    words.bitwise_xor_(_logical_shift(words, 27)).mul_(_signed(_MIX_2))
    words.bitwise_xor_(_logical_shift(words, 31))
    return words.view(torch.int16)[first % _LANES :][:count]


def keep_bytes(key: int, first: int, count: int, density: float, scratch: Scratch) -> Tensor:
    """`keep_mask` as uint8 [count], 1 for what stays, in memory of `scratch` on its device."""
    if not scratch.on_cpu:
        return keep_mask(key, first, count, density, scratch.device).view(torch.uint8)
    start = first // _LANES
    size = (first + count - 1) // _LANES + 1 - start
    words = scratch("random words", (size,), torch.int64).numpy().view(np.uint64)
    shifted = scratch("shifted words", (size,), torch.int64).numpy().view(np.uint64)
    kept = scratch("kept", (count,), torch.uint8)
    offset = np.uint64((start * _GOLDEN_GAMMA + key) % 2**64)
    np.add(_multiples(size), offset, out=words)
    for bits, factor in ((30, _MIX_1), (27, _MIX_2), (31, 1)):
        np.right_shift(words, np.uint64(bits), out=shifted)
        np.bitwise_xor(words, shifted, out=words)
        if factor != 1:
            np.multiply(words, np.uint64(factor), out=words)
    draws = words.view(np.int16)[first % _LANES :][:count]
    np.less(draws, np.int16(_limit(density)), out=kept.numpy().view(np.bool_))
    return kept


@lru_cache(maxsize=4)
def _multiples(size: int) -> NDArray[np.uint64]:
    """0, 1, 2, ... times the generator's increment, modulo 2^64."""
    return np.arange(size, dtype=np.uint64) * np.uint64(_GOLDEN_GAMMA)


def _limit(density: float) -> int:
    """What a signed 16-bit draw must be below to stay."""
    return max(1, min(65535, round(density * 65536))) - 32768


def _logical_shift(words: Tensor, bits: int) -> Tensor:
    """Shift right and fill with zeros: torch has no unsigned shift."""
    return (words >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
