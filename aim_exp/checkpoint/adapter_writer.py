"""A merge of adapters, written as an adapter of their base: what differs from it, as factors."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from aim_exp.checkpoint.adapters import FACTORS, PREFIX
from aim_exp.checkpoint.files import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    TOKENIZER_FILES,
    copy_companions,
    write_json,
)
from aim_exp.checkpoint.reader import Checkpoint, TensorInfo
from aim_exp.errors import CheckpointError
from aim_exp.store.files import whole_folder

TOLERANCE = 32 * torch.finfo(torch.float32).eps
"""Of a tensor's largest weight: what may be left beside the factors, the rounding of float32."""


class AdapterWriter:
    """A sink for a merge in float32 that writes `folder` as peft does.

    Every output of the merge must be a combination of the experts' outputs, which `write` looks at:
    then B are their B, made orthonormal, and A is what is left. A tensor that an expert holds whole
    is saved whole. `trained_on` is what base is called, and its revision. A context manager: the
    folder appears only when all is written.
    """

    def __init__(
        self,
        folder: Path,
        base: Checkpoint,
        experts: Sequence[Checkpoint],
        trained_on: tuple[str, str],
    ) -> None:
        self.folder = folder
        self._base = base
        self._experts = experts
        self._trained_on = trained_on
        self._coming: dict[str, tuple[Tensor, int]] = {}
        self._whole: dict[str, Tensor] = {}
        self._factors: dict[str, tuple[Tensor, Tensor]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> AdapterWriter:
        """Nothing is written before the end."""
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Put the folder in place, unless there was an error."""
        if error is None:
            self._save()

    def write(self, name: str, rows: slice, block: Tensor) -> None:
        """Take rows of a tensor, in order; of what no adapter touches nothing is kept.

        CheckpointError for a tensor whose rank is not that of the adapters.
        """
        if name not in self._touched:
            return
        with self._lock:
            shape = self._base.tensors[name].shape
            tensor, _ = self._coming.pop(name, (torch.empty(shape), 0))
        tensor[rows] = block.cpu()
        if rows.stop < len(tensor):
            with self._lock:
                self._coming[name] = (tensor, rows.stop)
            return
        factors = self._factored(name, tensor)
        with self._lock:
            if factors:
                self._factors[name] = factors
            else:
                self._whole[name] = tensor

    @cached_property
    def _touched(self) -> Mapping[str, Sequence[TensorInfo]]:
        """By tensor, what adapters make of it."""
        touched: dict[str, list[TensorInfo]] = {}
        for expert in self._experts:
            for name, info in expert.tensors.items():
                if info != self._base.tensors.get(name):
                    touched.setdefault(name, []).append(info)
        return touched

    def _factored(self, name: str, merged: Tensor) -> tuple[Tensor, Tensor] | None:
        """B and A of a tensor, float32; None where an expert holds it whole."""
        infos = self._touched[name]
        known = [each.factors(name, self._base) for each in self._experts]
        lefts = [factors[0].double() for factors in known if factors]
        if len(lefts) < len(infos):
            return None
        base = self._base.tensor(name).double()
        delta = merged.double() - base
        delta = delta.T if _turned(infos) else delta
        b, _ = torch.linalg.qr(torch.cat(lefts, dim=1))
        a = b.T @ delta
        beside = (delta - b @ a).abs().max().item()
        if beside > TOLERANCE * base.abs().max().item():
            raise CheckpointError(
                f"save_model=adapter: in {name} the merge is not of rank {b.shape[1]}, the "
                f"adapters' together ({beside:.2g} is left); set save_model=true"
            )
        return b.float(), a.float()

    def _save(self) -> None:
        rank = max((b.shape[1] for b, _ in self._factors.values()), default=1)
        content = {f"{PREFIX}{_module(self._touched[n])}.weight": t for n, t in self._whole.items()}
        transposed = False
        for name, (b, a) in self._factors.items():
            infos = self._touched[name]
            module, embedding = _module(infos), _is_embedding(infos)
            transposed = transposed or (_turned(infos) and not embedding)
            spare = rank - b.shape[1]
            ends = ("embedding_A", "embedding_B") if embedding else ("A.weight", "B.weight")
            padded = (
                torch.nn.functional.pad(a, (0, 0, 0, spare)),
                torch.nn.functional.pad(b, (0, spare)),
            )
            for end, factor in zip(ends, padded, strict=True):
                content[f"{PREFIX}{module}.lora_{end}"] = factor.contiguous()
        with whole_folder(self.folder) as partial:
            save_file(content, partial / ADAPTER_FILE, {"format": "pt"})
            write_json(partial / ADAPTER_CONFIG, self._settings(rank, transposed=transposed))
            copy_companions(self._base.folder, partial, TOKENIZER_FILES)
            shutil.rmtree(self.folder, ignore_errors=True)

    def _settings(self, rank: int, *, transposed: bool) -> Mapping[str, object]:
        """As peft reads them: one rank for all, padded, and a scale of one."""
        name, revision = self._trained_on
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": name,
            "revision": revision or None,
            "r": rank,
            "lora_alpha": rank,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": transposed,
            "init_lora_weights": True,
            "inference_mode": True,
            "target_modules": sorted(_module(self._touched[name]) for name in self._factors),
            "modules_to_save": sorted(_module(self._touched[n]) for n in self._whole) or None,
        }


def adapter_problem(expert: Checkpoint, base: Checkpoint) -> str | None:
    """Why a merge with `expert` cannot be written as an adapter of base."""
    touched = {n: i for n, i in expert.tensors.items() if i != base.tensors.get(n)}
    reason = None
    if not all(info.update or info.stored.startswith(PREFIX) for info in touched.values()):
        reason = "is a whole model"
    elif dora := next((n for n, i in touched.items() if i.update and i.update.magnitude), None):
        reason = f"is a DoRA ({dora}), which adds more than B A"
    elif bias := next((name for name in touched if not name.endswith(".weight")), None):
        reason = f"has trained {bias}, which is no module's weight"
    return reason and f"save_model=adapter: {expert.label} {reason}; set save_model=true"


def _turned(infos: Iterable[TensorInfo]) -> bool:
    return any(info.update and info.update.transposed for info in infos)


def _is_embedding(infos: Iterable[TensorInfo]) -> bool:
    return any(info.update and "lora_embedding" in info.update.a.stored for info in infos)


def _module(infos: Sequence[TensorInfo]) -> str:
    """What peft calls the module of a tensor."""
    info = infos[0]
    name = (info.update.a if info.update else info).stored.removeprefix(PREFIX)
    for end in (*FACTORS, "base_layer.weight", "weight"):
        name = name.removesuffix(f".{end}")
    return name
