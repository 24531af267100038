"""What a reader must know before believing a report: computed from it, in plain words."""

from __future__ import annotations

import math

from aim_exp.report.compare.comparability import doubts
from aim_exp.report.results import Results
from aim_exp.report.summary import repeats, study_words


def notes(results: Results) -> list[str]:
    """The caveats that apply to these results."""
    found = [
        _precision(results),
        _studies(results),
        _repeats(results),
        _draws(results),
        _embedded(results),
    ]
    return [note for note in (*doubts(results), *found, *_warnings(results)) if note]


def _precision(results: Results) -> str:
    """How large a difference of two averages must be to mean something."""
    averages = [job.merged.average for job in results.scored if job.merged]
    errors = [average.stderr for average in averages if average and average.stderr is not None]
    if not errors:
        return ""
    margin = 100 * 1.96 * math.sqrt(2) * max(errors)
    return (
        f"Without a paired test, two averages closer than about {margin:.1f} points cannot be told "
        "apart (95 %). With many runs the best one is partly luck."
    )


def _studies(results: Results) -> str:
    count = len(study_words(results))
    if not count:
        return ""
    return (
        f"{count} populations or protocols were scored, numbered in brackets: each has its own "
        "tables, and fronts, gains and what is best hold within one of them only."
    )


def _repeats(results: Results) -> str:
    if not results.repeated:
        return ""
    same = repeats(results)
    return f"The same run, with the same results, in several sweeps is listed once: {same}."


def _draws(results: Results) -> str:
    """Methods whose random choices had one seed: what those add is not known."""
    drawn = [job.record for job in results.scored if job.record.stochastic]
    if not drawn or len({record.seed for record in drawn}) > 1:
        return ""
    methods = ", ".join(sorted({record.method for record in drawn}))
    return f"{methods}: random choices drawn with one `seed`; sweep it to see their spread."


def _embedded(results: Results) -> str:
    """Measured on it: relaxing by saliency is no better there than by the same mean factor."""
    if all(job.record.population.get("name") != "tiny" for job in results.scored):
        return ""
    controlled = any(job.settings.get("aim.scaling") == "uniform" for job in results.scored)
    return (
        "The embedded population shows that the pipeline works, not that AIM does: at its size a "
        "gain from AIM could not be told from shrinking every delta by the same mean factor."
        + " Run the control `aim.scaling=uniform` beside it."
        * (not controlled)
    )


def _warnings(results: Results) -> list[str]:
    """What the runs themselves warned of, once each."""
    return list(dict.fromkeys(text for job in results.jobs for text in job.record.warnings))
