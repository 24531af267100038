"""How AIM pulls, computed: how base's saliency is spread over channels, and what was kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from aim_exp.checkpoint.names import kind_of, layer_of
from aim_exp.report.repeats import Repeats
from aim_exp.report.results import Results
from aim_exp.report.studies import Study, studies

Floats = NDArray[np.float64]

ALL = "all"
"""A record's sum over all kinds of modules."""
MOST = 7
"""Lines of a figure of profiles."""
POINTS = 200
"""Of a curve over the channels."""


@dataclass(frozen=True)
class Input:
    """An input of a model's modules, the same in every layer, and how even its channels are."""

    name: str
    """The kinds of modules that read it: `q/k/v_proj`."""
    falling: Floats
    """[points]: s / max s of the channels in falling order, by `SaliencySpread.channels`; mean
    over the layers. r is 1 minus (1 - omega) times this."""
    layers: Mapping[int | None, float]
    """By layer, the mean of s / max s: 1 where AIM pulls on all channels alike. None is what
    lies in no layer."""


@dataclass(frozen=True)
class SaliencySpread:
    """How base's saliency is spread over channels; inputs from even to concentrated."""

    channels: Floats
    """[points]: shares of the channels, the most salient first; even on a log scale."""
    inputs: tuple[Input, ...]

    @property
    def layers(self) -> list[int]:
        """Of all inputs."""
        return sorted({n for each in self.inputs for n in each.layers if n is not None})


@dataclass(frozen=True)
class Profile:
    """What AIM left of a merge's delta, by kind of module and `ALL`; means over seeds."""

    method: str
    setting: str
    """What else varies, omega apart; empty if nothing."""
    omega: float
    kept: Mapping[str, float]
    """Norm of the delta after AIM over before."""
    mean_r: Mapping[str, float]
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Least and greatest share kept, where this is the mean over a method's settings."""


def saliency_spread(results: Results) -> SaliencySpread | None:
    """Of the saliency that most runs used; None where none did, or where it is gone."""
    file = _saliency_file(results)
    return None if file is None else spread(_read(file))


def saliency_is_gone(results: Results) -> bool:
    """Whether runs used a saliency that is no longer in the cache."""
    return _saliency_folder(results) is not None and _saliency_file(results) is None


def _saliency_folder(results: Results) -> Path | None:
    used = Counter(job.record.saliency for job in results.jobs if job.record.saliency)
    return Path(used.most_common(1)[0][0]) if used else None


def _saliency_file(results: Results) -> Path | None:
    folder = _saliency_folder(results)
    return next(folder.glob("*.safetensors"), None) if folder else None


def spread(saliency: Mapping[str, Floats]) -> SaliencySpread:
    """`saliency` maps the name of a weight to its raw statistic, [channels]."""
    by_kind: dict[str, dict[str, Floats]] = {}
    for name, channels in saliency.items():
        if channels.max() > 0:  # else AIM leaves it alone
            by_kind.setdefault(kind_of(name), {})[name] = channels
    shared: dict[bytes, list[str]] = {}
    for kind, tensors in by_kind.items():
        shared.setdefault(b"".join(t.tobytes() for t in tensors.values()), []).append(kind)
    widest = max(len(channels) for channels in saliency.values())
    grid = np.geomspace(1 / widest, 1, POINTS)
    inputs = [_input(kinds, by_kind[kinds[0]], grid) for kinds in shared.values()]
    inputs.sort(key=lambda each: fmean(each.layers.values()), reverse=True)
    return SaliencySpread(grid, tuple(inputs))


def profiles(results: Results) -> list[Profile]:
    """One for each method, omega and what else varies, but for the seeds; scored or not.

    Where that is more than can be told apart, the settings of a method are taken together.
    """
    relaxed = [job for job in results.jobs if "delta_kept" in job.record.relaxation.get(ALL, {})]
    found = [(study, each) for study in studies(results, relaxed) for each in study.repeats]
    every = [_profile(study, repeats) for study, repeats in found]
    if len({(profile.method, profile.setting) for profile in every}) <= MOST:
        return every
    groups: dict[tuple[str, str, float], list[Profile]] = {}
    for (study, repeats), profile in zip(found, every, strict=True):
        setting = study.setting(repeats.first, leave_out=("method.",))
        groups.setdefault((profile.method, setting, profile.omega), []).append(profile)
    return [_together(group, setting) for (_, setting, _), group in groups.items()]


def kinds_shown(found: Sequence[Profile]) -> list[str]:
    """The kinds of modules that were relaxed: those kept most first, `ALL` before them."""
    kinds = {kind for profile in found for kind in profile.kept} - {ALL}

    def kept(kind: str) -> float:
        return fmean(profile.kept[kind] for profile in found if kind in profile.kept)

    return [ALL, *sorted(kinds, key=kept, reverse=True)]


def joined(kinds: Sequence[str]) -> str:
    """`q_proj`, `k_proj` and `v_proj` as `q/k/v_proj`."""
    beginnings, endings = zip(*(kind.rpartition("_")[::2] for kind in kinds), strict=True)
    if len(kinds) > 1 and all(beginnings) and len(set(endings)) == 1:
        return f"{'/'.join(beginnings)}_{endings[0]}"
    return "/".join(kinds)


def _read(file: Path) -> dict[str, Floats]:
    """By weight, [channels], widened; without what a measuring run imports."""
    from safetensors.numpy import load_file

    return {name: channels.astype(float) for name, channels in load_file(file).items()}


def _input(kinds: Sequence[str], tensors: Mapping[str, Floats], grid: Floats) -> Input:
    layers: dict[int | None, list[float]] = {}
    for name, channels in tensors.items():
        layers.setdefault(layer_of(name), []).append(float(channels.mean() / channels.max()))
    return Input(
        name=joined(kinds),
        falling=np.mean([_falling(channels, grid) for channels in tensors.values()], axis=0),
        layers={layer: fmean(values) for layer, values in layers.items()},
    )


def _falling(channels: Floats, grid: Floats) -> Floats:
    """s / max s at the channels that stand at `grid`, shares of all, in falling order."""
    ranks = np.arange(1, len(channels) + 1) / len(channels)
    return np.interp(grid, ranks, np.sort(channels)[::-1] / channels.max())


def _profile(study: Study, repeats: Repeats) -> Profile:
    record = repeats.first.record
    assert record.omega is not None, "a run with AIM has an omega"
    return Profile(
        method=record.method,
        setting=study.setting(repeats.first),
        omega=record.omega,
        kept=_means(repeats, "delta_kept"),
        mean_r=_means(repeats, "mean_r"),
    )


def _together(group: Sequence[Profile], setting: str) -> Profile:
    kept = _collected(profile.kept for profile in group)
    mean_r = _collected(profile.mean_r for profile in group)
    return replace(
        group[0],
        setting=setting,
        kept={kind: fmean(values) for kind, values in kept.items()},
        mean_r={kind: fmean(values) for kind, values in mean_r.items()},
        ranges={kind: (min(v), max(v)) for kind, v in kept.items() if len(group) > 1},
    )


def _means(repeats: Repeats, quantity: str) -> dict[str, float]:
    found = _collected(
        {
            kind: values[quantity]
            for kind, values in job.record.relaxation.items()
            if quantity in values
        }
        for job in repeats.jobs
    )
    return {kind: fmean(values) for kind, values in found.items()}


def _collected(rows: Iterable[Mapping[str, float]]) -> dict[str, list[float]]:
    """By kind of module, the values of all rows that have it."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for kind, value in row.items():
            found.setdefault(kind, []).append(value)
    return found
