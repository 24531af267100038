"""What a run would do, before it does it: work, downloads, disk, memory, time."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median, stdev

from aim_exp.checkpoint.hub import bytes_to_download, dataset_refusal
from aim_exp.console import size_text
from aim_exp.run.room import memory, on_disk, weights
from aim_exp.run.run import Run
from aim_exp.statistics import DISCORDANCES, detectable_at_discordance, smallest_detectable
from aim_exp.store.files import existing
from aim_exp.store.run_record import find_records


@dataclass(frozen=True)
class Work:
    """A stage of a plan: how many entries of the store it has, and how many are to be made."""

    heading: str
    what: str
    key: str
    """Empty: the work of this run alone."""
    parts: int
    to_do: int


@dataclass(frozen=True)
class Shared:
    """Work of one heading in all jobs: times needed, of these distinct, of these to do."""

    heading: str
    needed: int
    distinct: int
    to_do: int


@dataclass(frozen=True)
class Needs:
    """What a run takes, in bytes and seconds; None where nothing tells."""

    download: int
    """Of what is on the hub and not on disk."""
    refused: tuple[str, ...]
    """Data sets of tasks that the hub does not give, with the reason."""
    disk: int
    """For downloads and for copies: the merged model where it is kept, pickled weights converted,
    the checkpoint that another process scores, what a method keeps in float32.
    """
    free_disk: int
    weights: int | None
    """Of one model in memory, in the run's dtype."""
    memory: int
    """Of this machine; a GPU's is not asked for."""
    seconds: float | None
    """To score a model, as in earlier runs of the same kind."""
    items: Mapping[str, int]
    """By benchmark; empty where they come from the hub, or `least` is known."""
    least: Mapping[str, float]
    """By benchmark, the least difference that shows, by the cached scores of base and experts;
    empty where they are to be made."""


def work(run: Run) -> list[Work]:
    """The stages of the run that leave something in the store, in their order."""
    return [
        Work(
            stage.heading,
            stage.what,
            stage.key,
            parts=len(stage.entries) or 1,
            to_do=sum(not run.store.has(entry) for entry in stage.entries) or not stage.entries,
        )
        for stage in run.plan.stages
        if stage.entries or not stage.shared
    ]


def shared(jobs: Sequence[Sequence[Work]]) -> list[Shared]:
    """The work of all jobs by heading: the same key is the same work, done once."""
    needed = [item for items in jobs for item in items]
    distinct = {item.key or id(item): item for item in needed}.values()
    return [
        Shared(
            heading,
            needed=sum(item.heading == heading for item in needed),
            distinct=sum(item.heading == heading for item in distinct),
            to_do=sum(item.heading == heading and item.to_do > 0 for item in distinct),
        )
        for heading in dict.fromkeys(item.heading for item in needed)
    ]


def needs(run: Run) -> Needs:
    """Downloads, disk, memory and time of the run; asks the hub for sizes."""
    models = [*run.recipe.population.models, *([run.recipe.given] if run.recipe.given else [])]
    download = sum(bytes_to_download(model) for model in models)
    if run.plan.saliency and not run.store.has(run.plan.saliency):
        download += run.calibration.bytes_to_download()
    size = weights(run.recipe.population.base, run.recipe.dtype)
    unconverted = sum(model.origin is not None and not model.path.is_dir() for model in models)
    # Where the run writes is not said by a plan: as if it were beside the store.
    rooms = [room for stage in run.plan.stages for room in stage.room(run, run.store.root)]
    least = _least(run)
    return Needs(
        download=download,
        refused=_refused(run),
        disk=download + unconverted * size + on_disk(rooms),
        free_disk=shutil.disk_usage(existing(run.store.root)).free,
        weights=size or None,
        memory=memory()[0],
        seconds=_seconds_per_model(run),
        items={} if least else _items(run),
        least=least,
    )


def _least(run: Run) -> dict[str, float]:
    """The median over base and each other member whose items are at hand."""
    from aim_exp.evaluate.results import item_scores

    least = {}
    for benchmark in run.recipe.suite.benchmarks:
        stages = [model.scores[benchmark.name] for model in run.plan.members]
        scores = [item_scores(run.store.path(each), benchmark)
                  for each in stages if run.store.has(each)]  # fmt: skip
        if len(scores) > 1 and run.store.has(stages[0]):
            base, *others = scores
            differences = [[each[i] - base[i] for i in base.keys() & each] for each in others]
            detectable = [smallest_detectable(stdev(d), len(d)) for d in differences if len(d) > 1]
            worst, best = benchmark.ends
            least[benchmark.name] = median(detectable) / abs(best - worst)
    return least


def _items(run: Run) -> dict[str, int]:
    """How many each benchmark has; of those from the hub it is not known here."""
    from aim_exp.evaluate.check import hub_datasets
    from aim_exp.evaluate.loading import n_items

    suite = run.recipe.suite
    if hub_datasets(suite):
        return {}
    return {benchmark.name: n_items(suite, benchmark) for benchmark in suite.benchmarks}


def _refused(run: Run) -> tuple[str, ...]:
    if not run.unscored:
        return ()
    from aim_exp.evaluate.check import hub_datasets

    return tuple(filter(None, map(dataset_refusal, hub_datasets(run.recipe.suite))))


def _seconds_per_model(run: Run) -> float | None:
    """The most that a model took in earlier runs of this population and suite."""
    outputs = run.store.root.parent
    if not outputs.is_dir():
        return None
    folders = [path for path in outputs.iterdir() if path.is_dir() and path != run.store.root]
    taken = [
        seconds
        for _, record in find_records(*folders)[0]
        if (record.population.name, record.choices.get("benchmarks"))
        == (run.recipe.population.name, run.recipe.suite.name)
        for stage, seconds in record.timings.items()
        if stage.startswith("score ")
    ]
    return max(taken) if taken else None


def in_words(needs: Needs) -> list[str]:
    """The needs in words; a shortage is marked."""
    lines = [
        f"hub       does not give {refused}; if it is not in the cache of the datasets library, "
        "set benchmarks.data_dir"
        for refused in needs.refused
    ]
    if needs.download:
        lines.append(f"download  {size_text(needs.download)}")
    if needs.disk:
        short = "  NOT ENOUGH" if needs.disk > needs.free_disk else ""
        of_free = f"of {size_text(needs.free_disk)} free{short}"
        lines.append(f"disk      {size_text(needs.disk)} {of_free}")
    if needs.weights:
        lines.append(
            f"memory    {size_text(needs.weights)} for one model's weights; this machine has "
            f"{size_text(needs.memory)}"
        )
    if needs.seconds is not None:
        lines.append(f"scoring   about {_duration(needs.seconds)} a model, going by earlier runs")
    return [*lines, *_power(needs)]


def _power(needs: Needs) -> list[str]:
    """The smallest differences that the benchmarks would show."""
    if needs.least:
        known = ", ".join(f"{100 * least:.1f} on {name}" for name, least in needs.least.items())
        return [
            f"shows     four times out of five, by cached scores, differences of {known} points"
        ]
    sizes: dict[int, list[str]] = {}
    for name, n in needs.items.items():
        sizes.setdefault(n, []).append(name)
    shares = ", ".join(f"{100 * share:.0f}" for share in DISCORDANCES)
    lines = [
        f"shows     four times out of five, where {shares} % of answers differ, a difference of"
    ]
    for n, names in sizes.items():
        least = (100 * detectable_at_discordance(share, n) for share in DISCORDANCES)
        points = ", ".join(f"{each:.1f}" for each in least)
        lines.append(f"  {points} points on {', '.join(names)} ({n} items)")
    return lines if sizes else []


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds:.0f} s"
