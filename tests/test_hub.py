"""Models from the hub: the real client against a small server that speaks the hub's language."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from adapters import save_adapter
from checkpoints import tensors
from conftest import Cli
from omegaconf import OmegaConf
from run_records import model_of
from safetensors.torch import load_file

from aim_exp.console import size_text

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GATED = "org/gated"


class Hub(ThreadingHTTPServer):
    """Serves `folder/NAME` as the model `org/NAME`, at one commit."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.fetched: list[str] = []
        """The path of every file that was sent whole."""


class Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/api/models/"):
            self.tell(self.path.removeprefix("/api/models/").split("?")[0])
        else:
            self.give(with_content=True)

    def do_HEAD(self) -> None:
        self.give(with_content=False)

    def tell(self, path: str) -> None:
        hub_id = "/".join(path.split("/")[:2])
        name = "base" if hub_id == GATED else hub_id.removeprefix("org/")
        if not (self.server.folder / name).is_dir():
            return self.answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        files = sorted((self.server.folder / name).iterdir())
        json_type = {"Content-Type": "application/json"}
        if "/tree/" in path:
            tree = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0"}
                for file in files
            ]
            return self.answer(200, json.dumps(tree).encode(), json_type)
        siblings = [{"rfilename": file.name, "size": file.stat().st_size} for file in files]
        about = {"id": hub_id, "modelId": hub_id, "sha": COMMIT, "siblings": siblings, "tags": []}
        return self.answer(200, json.dumps(about).encode(), json_type)

    def give(self, *, with_content: bool) -> None:
        hub_id, _, rest = self.path.removeprefix("/").partition("/resolve/")
        if hub_id == GATED:
            return self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
        file = self.server.folder / hub_id.removeprefix("org/") / rest.partition("/")[2]
        if not file.is_file():
            return self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = file.read_bytes()
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        status = 200
        if wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            content, status = content[int(first) : int(last or len(content)) + 1], 206
        if with_content and status == 200:
            self.server.fetched.append(self.path)
        return self.answer(status, content, headers, with_content=with_content)

    def answer(
        self, status: int, content: bytes, headers: dict[str, str], *, with_content: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_content:
            self.wfile.write(content)


@pytest.fixture
def hub(family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub(family)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    yield server
    server.shutdown()
    server.server_close()


def models(base: str = "org/base", **experts: str) -> tuple[str, ...]:
    table = ", ".join(f"{name}: {source}" for name, source in experts.items())
    return (
        "population=custom", f"population.base={base}", f"population.experts={{{table}}}",
        "method=ties", "omega=null", "benchmarks=none", "tracker=none",
    )  # fmt: skip


def test_a_plan_downloads_no_weights(hub: Hub, process: Cli, tmp_path: Path) -> None:
    """Headers tell dtype and size."""
    done = process(*models(a="org/a", b="org/b"), "plan=true", "hydra.run.dir=run")
    assert done.returncode == 0, done.stdout + done.stderr
    size = sum(file.stat().st_size for name in ("base", "a", "b")
               for file in (hub.folder / name).iterdir())  # fmt: skip
    assert f"download  {size_text(size)}" in done.stdout
    assert "for one model's weights" in done.stdout
    assert not [path for path in hub.fetched if path.endswith(".safetensors")]


def test_a_merge_of_hub_models_is_that_of_the_same_folders(
    hub: Hub, process: Cli, tmp_path: Path
) -> None:
    there = models(a="org/a", b=f"org/b@{COMMIT}")
    here = models(*[str(hub.folder / "base")], a=str(hub.folder / "a"), b=str(hub.folder / "b"))
    for name, population in (("there", there), ("here", here)):
        done = process(*population, "save_model=true", f"hydra.run.dir={name}")
        assert done.returncode == 0, done.stdout + done.stderr
    tensors, expected = (
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("there", "here")
    )
    assert tensors.keys() == expected.keys()
    assert all(tensors[name].equal(expected[name]) for name in expected)
    record = json.loads((tmp_path / "there" / "result.json").read_text())
    assert model_of(record, "base")["identity"] == f"hub:org/base@{COMMIT}"
    once = len(hub.fetched)
    assert process(*there, "hydra.run.dir=again").returncode == 0
    assert len(hub.fetched) == once, "downloaded once"


@pytest.mark.slow
def test_an_adapter_of_a_hub_model(hub: Hub, process: Cli, tmp_path: Path, family: Path) -> None:
    """From the hub as from a folder; the base that it names is compared."""
    hub.folder = tmp_path / "hub"
    shutil.copytree(family / "base", hub.folder / "base")
    stored = tensors(family / "base")
    expected = {}
    for name, revision in (("main", "main"), ("old", "f" * 40), ("none", None)):
        expected = save_adapter(
            hub.folder / name,
            stored,
            {"lm_head": 2},
            base_model_name_or_path="org/base" if revision else "org/other",
            revision=revision,
        )
    table = models(x="org/main", y=str(hub.folder / "main"), z="org/none")
    run = (*table, "method=linear", "save_model=true", "hydra.run.dir=run")
    assert process(*run, "plan=true").returncode == 0
    done = process(*run)
    assert done.returncode == 0, done.stdout + done.stderr
    merged = tensors(tmp_path / "run" / "model")["lm_head.weight"]
    assert merged.equal(expected["lm_head.weight"].float().bfloat16())
    warnings = json.loads((tmp_path / "run" / "result.json").read_text())["warnings"]
    (warning,) = [text for text in warnings if "are they the same" in text]
    assert warning.startswith("z: an adapter of org/other, and base is org/base;")
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert f"x: an adapter, [org/main](https://huggingface.co/org/main) at `{COMMIT}`" in card
    recipe = OmegaConf.load(tmp_path / "run" / "model" / "aim_exp.yaml")
    assert recipe.config.population.experts.x == f"org/main@{COMMIT}"
    done = process(*models(x=str(hub.folder / "old")), "hydra.run.dir=refused")
    assert done.returncode == 1
    assert f"was trained on org/base@{'f' * 40}, and base is at {COMMIT}; set" in done.stderr


@pytest.mark.parametrize("more", [(), ("plan=true",)])
def test_a_gated_model_says_what_to_do(hub: Hub, process: Cli, more: tuple[str, ...]) -> None:
    done = process(*models(GATED, a="org/a"), *more, "hydra.run.dir=run")
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert f"accept its terms on huggingface.co/{GATED} and set HF_TOKEN" in line


def test_a_model_that_is_not_there_is_named(hub: Hub, process: Cli) -> None:
    done = process(*models(a="org/nobody"), "hydra.run.dir=run")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "population.experts.a=org/nobody: no such folder, and the hub does not give it" in line


def test_a_sweeps_plan_says_an_error_once(hub: Hub, process: Cli) -> None:
    done = process("-m", *models(a="org/nobody"), "plan=true", "method=ties,linear")
    assert done.returncode == 1
    assert done.stderr.count("population.experts.a=org/nobody") == 1


@pytest.mark.slow
def test_a_plan_says_which_data_sets_the_hub_does_not_give(hub: Hub, process: Cli) -> None:
    done = process("benchmarks=lm_eval", "benchmarks.tasks=[gsm8k, arc_easy]", "plan=true")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("hub       does not give") == 2
    for name in ("openai/gsm8k", "allenai/ai2_arc"):
        assert f"does not give {name} (" in done.stdout
