"""Where the options are that one can choose from."""

from pathlib import Path

CONFIG_FOLDER = Path(__file__).resolve().parents[2] / "conf"


def known_options(group: str) -> list[str]:
    """The options of a group: the files in `conf/GROUP`, and in folders there."""
    folder = CONFIG_FOLDER / group
    files = sorted(folder.rglob("*.yaml"))
    return [file.relative_to(folder).with_suffix("").as_posix() for file in files]
