"""What is measured of a run's models on texts: activations, gradients, products of inputs."""

# Transformers' models take seconds to import: what measures with them is imported where it does.
from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from aim_exp.aim.calibration import CalibrationBlocks, CalibrationSet
from aim_exp.checkpoint.adapters import open_model
from aim_exp.console import progress
from aim_exp.merge.fisher import FISHER_FILE
from aim_exp.run.models import Models
from aim_exp.types import ModelRef

if TYPE_CHECKING:
    from aim_exp.aim.grams import Reader

CALIBRATION_FILE = "calibration.json"


def measure_activations(
    models: Models, measured: ModelRef, calibration: CalibrationSet, folder: Path
) -> None:
    """Write the saliency of one model, and how many texts, blocks and tokens were used."""
    from aim_exp.aim.measure import measure, measure_layerwise
    from aim_exp.checkpoint.layerwise import LayerwiseModel

    checkpoint = open_model(measured)
    if calibration.offload == "layers":
        model = LayerwiseModel(checkpoint, models.run.recipe.dtype, models.device)
        steps, pass_over = len(model.layers), partial(measure_layerwise, model)
    else:
        model = models.live(measured)
        steps, pass_over = 1, partial(measure, model.model)
    blocks = _blocks(calibration, model)
    with progress("Measuring activations", len(blocks.ids) * steps) as advance:
        saliency = pass_over(blocks.ids, advance, skip=calibration.skip_positions)
    saliency.on_checkpoint(model.places).with_column_norms(checkpoint).save(folder)
    counts = {
        "n_texts": blocks.n_texts,
        "n_blocks": len(blocks.ids),
        "n_tokens": blocks.n_tokens,
    }
    (folder / CALIBRATION_FILE).write_text(json.dumps(counts))


def measure_fisher(
    models: Models, measured: ModelRef, calibration: CalibrationSet, folder: Path
) -> None:
    """Write one model's diagonal Fisher information, under the checkpoint's names."""
    from aim_exp.aim.fisher import fisher

    live = models.live(measured)
    blocks = _blocks(calibration, live)
    with progress("Measuring gradients", len(blocks.ids)) as advance:
        values = fisher(
            live.model,
            blocks.ids,
            advance,
            seed=calibration.seed,
            skip=calibration.skip_positions,
        )
    content = {
        name: place.view(values[place.parameter]).clone()
        for name, place in live.places.items()
        if place.parameter in values
    }
    save_file(content, folder / FISHER_FILE)


def readers(models: Models) -> list[Reader]:
    """The experts to merge, layer by layer, each with its own texts."""
    from aim_exp.aim.grams import Reader
    from aim_exp.checkpoint.layerwise import LayerwiseModel

    run = models.run
    each = []
    for model in run.recipe.population.merged_experts:
        texts = run.calibration.of(model.name)
        layerwise = LayerwiseModel(open_model(model), run.recipe.dtype, models.device)
        each.append(Reader(layerwise, _blocks(texts, layerwise).ids, texts.skip_positions))
    return each


def _blocks(calibration: CalibrationSet, model: Any) -> CalibrationBlocks:
    """The texts in the model's own tokens."""
    blocks = calibration.blocks(model.tokenizer)
    blocks.check_rows(model.model.get_input_embeddings().num_embeddings, model.tokenizer)
    return blocks
