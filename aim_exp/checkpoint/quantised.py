"""Quantised weights: known by their names and dtypes, refused with what makes numbers of them."""

from collections.abc import Mapping

from aim_exp.checkpoint.reader import Checkpoint

SETTINGS = "quantization_config"
PARTS = (".qweight", ".qzeros", ".absmax", ".quant_map", "_scale_inv", ".weight_scale",
         ".weight_packed", "_proj_blocks", ".SCB", ".W_q")  # fmt: skip
"""How the names end of what stands beside, or for, a quantised tensor."""
LOADED = "load it with transformers"
REMEDIES: Mapping[str, str] = {
    "bitsandbytes": f"{LOADED}, then model.dequantize() and save_pretrained",
    "fp8": f"{LOADED}, quantization_config=FineGrainedFP8Config(dequantize=True), save_pretrained",
    "mxfp4": f"{LOADED}, quantization_config=Mxfp4Config(dequantize=True), save_pretrained",
    "compressed-tensors": f"{LOADED}, quantization_config="
    "CompressedTensorsConfig(dequantize=True), save_pretrained",
}
"""By transformers' name of a method, how its models are dequantised."""


def quantisation_problem(checkpoint: Checkpoint) -> str | None:
    """Why a quantised model cannot be merged, and how to have numbers of it."""
    quantised = [
        name
        for name, info in checkpoint.tensors.items()
        if info.dtype.startswith("float8") or name.endswith(PARTS)
    ]
    settings = checkpoint.config.get(SETTINGS)
    method = settings.get("quant_method") if isinstance(settings, Mapping) else None
    method = str(method or "no known method")
    if quantised:
        remedy = REMEDIES.get(method)
        dequantise = f", or dequantise it: {remedy}" if remedy else ""
        return (
            f"{checkpoint.label}: quantised by {method} ({quantised[0]}), which cannot be merged; "
            f"give the model that it was made from{dequantise}"
        )
    if settings is not None:
        return (
            f"{checkpoint.label}: config.json says that it is quantised by {method}, its weights "
            f"are not; take {SETTINGS} out of {checkpoint.folder}/config.json"
        )
    return None
