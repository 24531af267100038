"""One set of tensors for the models of a merge: prefixes, places, strays, output heads."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from built_runs import built
from checkpoints import checkpoint, tensors
from conftest import llama_config
from families import SUM, save_family
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaForCausalLM,
)

from aim_exp.aim.saliency import Saliency
from aim_exp.checkpoint.decoders import BIASED, is_whole
from aim_exp.checkpoint.fit import fit_problems
from aim_exp.checkpoint.layouts import layout
from aim_exp.checkpoint.live import LiveModel
from aim_exp.checkpoint.matching import matched, name_problem, wrapper_warnings
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.merge.stream import stream_checkpoint, stream_merge
from aim_exp.run.pipeline import Pipeline, Results

HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"


def rewritten(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    file = folder / "model.safetensors"
    content = change(load_file(file))
    save_file({name: t.contiguous() for name, t in content.items()}, file, {"format": "pt"})


def configured(folder: Path, **changes: Any) -> None:
    """Change settings of a model; None takes one out."""
    path = folder / "config.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def executed(tmp_path: Path, *overrides: str) -> Results:
    """A run of the models `base`, `a` and `b` in `tmp_path`, saved in `run/model`."""
    run = built(
        tmp_path / "cache", "population=custom", f"population.base={tmp_path / 'base'}",
        f"population.experts={{a: {tmp_path / 'a'}, b: {tmp_path / 'b'}}}",
        "method=task_arithmetic", "tracker=none", "save_model=true", *overrides,
    )  # fmt: skip
    (tmp_path / "run").mkdir(exist_ok=True)
    return Pipeline(run, tmp_path / "run").execute()


def loads_whole(folder: Path) -> Any:
    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    model, loading = loaded
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


# Names


PREFIXED: dict[str, Callable[[str], str]] = {
    "torch.compile": lambda name: f"_orig_mod.{name}",
    "DataParallel": lambda name: f"module.{name}",
    "both": lambda name: f"module._orig_mod.{name}",
    "compiled layers": lambda name: name.replace(".self_attn", "._orig_mod.self_attn"),
    "FSDP": lambda name: name.replace("model.", "model._fsdp_wrapped_module."),
}


@pytest.mark.parametrize("kind", PREFIXED)
def test_what_wrapped_a_model_comes_off_its_names(kind: str, family: Path, tmp_path: Path) -> None:
    shutil.copytree(family / "a", tmp_path / "a")
    rename = PREFIXED[kind]
    rewritten(tmp_path / "a", lambda content: {rename(n): t for n, t in content.items()})
    plain, wrapped = checkpoint(family, "a"), checkpoint(tmp_path, "a")
    assert wrapped.tensors.keys() == plain.tensors.keys()
    assert all(torch.equal(wrapped.tensor(n), plain.tensor(n)) for n in plain.tensors)
    (warning,) = wrapper_warnings([plain, wrapped])
    count = sum(rename(name) != name for name in plain.tensors)
    assert warning.startswith("a: ")
    assert f"came off the names of {count} tensors" in warning
    live = LiveModel(tmp_path / "a", "bfloat16", "cpu")
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(live.model(ids).logits, loads_whole(family / "a")(ids).logits)


def test_one_tensor_under_two_names_is_refused(family: Path, tmp_path: Path) -> None:
    shutil.copytree(family / "a", tmp_path / "a")
    rewritten(tmp_path / "a", lambda c: {**c, f"_orig_mod.{HEAD}": c[HEAD].clone()})
    (problem,) = fit_problems(checkpoint(family, "base"), [checkpoint(tmp_path, "a")])
    assert problem.startswith("a: ")
    assert "is lm_head.weight again" in problem


def test_a_merge_of_wrapped_models_loads(family: Path, tmp_path: Path) -> None:
    for name in ("base", "a", "b"):
        shutil.copytree(family / name, tmp_path / name)
        rewritten(tmp_path / name, lambda c: {f"module._orig_mod.{n}": t for n, t in c.items()})
    results = executed(tmp_path, "benchmarks=none", "omega=null")
    assert sum("came off the names" in warning for warning in results.warnings) == 3
    loads_whole(tmp_path / "run" / "model")
    assert set(tensors(tmp_path / "run" / "model")) == set(checkpoint(family, "base").tensors)


@pytest.mark.parametrize("stray", [True, False])
def test_names_are_checked_where_nothing_is_measured_or_scored(
    stray: bool, family: Path, tmp_path: Path
) -> None:
    gone = "model.layers.1.mlp.up_proj.weight"
    for name in ("base", "a", "b"):
        shutil.copytree(family / name, tmp_path / name)
        if stray:
            rewritten(tmp_path / name, lambda c: {**c, "model.adapter.weight": torch.ones(2)})
        else:
            rewritten(tmp_path / name, lambda c: {n: t for n, t in c.items() if n != gone})
    words = "has model.adapter.weight, which have no place" if stray else f"lacks {gone}"
    with pytest.raises(ValueError, match=f"base: as LlamaForCausalLM it {words}"):
        executed(tmp_path, "benchmarks=none", "omega=null")
    assert not (tmp_path / "run" / "model").exists()


def test_an_architecture_of_its_own_is_merged_by_name(family: Path, tmp_path: Path) -> None:
    for name in ("base", "a", "b"):
        shutil.copytree(family / name, tmp_path / name)
        configured(tmp_path / name, model_type="mine", architectures=["Mine"])
        rewritten(tmp_path / name, lambda c: {f"mine.{n}": t for n, t in c.items()})
    results = executed(tmp_path, "benchmarks=none", "omega=null")
    assert any("whether its tensors are all is not known" in word for word in results.warnings)
    assert len(tensors(tmp_path / "run" / "model")) == len(tensors(family / "a"))


def test_tensors_are_matched_by_place(saved: tuple[str, Path]) -> None:
    """Base in the hub's names; the expert as transformers saves it today, and as it holds it."""
    kind, folder = saved
    base, expert = checkpoint(folder, "base"), checkpoint(folder, "a")
    assert name_problem(base) is None
    is_text = kind not in ("gemma3", "llava", "qwen2_vl", "qwen2_5_vl")
    auto: Any = AutoModelForCausalLM if is_text else AutoModelForImageTextToText
    model = auto.from_pretrained(folder / "a")
    shutil.copytree(folder / "a", folder / "again")
    model.save_pretrained(folder / "again")
    shutil.copytree(folder / "again", folder / "held")
    held = dict(model.state_dict()) if "experts" not in str(model.state_dict().keys()) else {}
    if held:
        kept = {n: t for n, t in held.items() if n != HEAD or not model.config.tie_word_embeddings}
        rewritten(folder / "held", lambda content: kept)
    for other in (checkpoint(folder, "again"), checkpoint(folder, "held")):
        assert name_problem(other) is None
        assert fit_problems(base, [other]) == []
        first, (renamed,) = matched(base, [other])
        assert list(renamed.tensors) == list(first.tensors)
        assert set(first.tensors) == set(base.tensors)
        assert all(torch.equal(renamed.tensor(n), expert.tensor(n)) for n in first.tensors)


def test_a_stray_tensor_of_any_family_is_named(saved: tuple[str, Path]) -> None:
    _, folder = saved
    base = checkpoint(folder, "base")
    gone = next(name for name in base.tensors if ".0." in name)
    rewritten(folder / "a", lambda c: {**c, "model.stray.weight": torch.ones(2)})
    rewritten(folder / "b", lambda c: {n: t for n, t in c.items() if n != gone})
    for name, words in {"a": "has model.stray.weight", "b": "lacks "}.items():
        other = checkpoint(folder, name)
        assert words in str(name_problem(other))
        (problem,) = fit_problems(base, [other])
        assert words in problem


def test_what_is_whole_without_transformers_is_so_with_it(saved: tuple[str, Path]) -> None:
    kind, folder = saved
    known = kind.removesuffix("_tied") in BIASED
    assert is_whole(checkpoint(folder, "base")) == known
    last = max(checkpoint(folder, "base").tensors)
    for change in (
        lambda c: {**c, "model.stray.weight": torch.ones(2)},
        lambda c: {**c, "model.stray": torch.ones(2).int()},
        lambda c: {name: tensor for name, tensor in c.items() if name != last},
        lambda c: {**c, last: c[last].repeat(2, *[1] * (c[last].ndim - 1))},
        lambda c: {**c, last: c[last].int()},
    ):
        rewritten(shutil.copytree(folder / "a", folder / "b", dirs_exist_ok=True), change)
        assert not is_whole(checkpoint(folder, "b"))
    configured(folder / "a", num_hidden_layers=10**12)
    assert not is_whole(checkpoint(folder, "a"))


def test_buffers_of_published_files_on_either_side(tmp_path: Path, tiny_population: Path) -> None:
    save_family("gpt2", tmp_path, tiny_population / "base")
    mask = {f"h.{n}.attn.bias": torch.ones(1, 1, 8, 8).tril() for n in range(2)}
    old = {f"h.{n}.attn.masked_bias": torch.tensor(-1e4) for n in range(2)}
    shutil.copytree(tmp_path / "base", tmp_path / "plain")
    rewritten(tmp_path / "base", lambda c: {**c, **mask, **old})
    AutoModelForCausalLM.from_pretrained(tmp_path / "a").save_pretrained(tmp_path / "trained")
    for one, other in (("base", "trained"), ("plain", "base"), ("trained", "base")):
        base, expert = checkpoint(tmp_path, one), checkpoint(tmp_path, other)
        assert fit_problems(base, [expert]) == []
        first, (renamed,) = matched(base, [expert])
        assert first.tensors.keys() == renamed.tensors.keys()
        assert not any(name.endswith((".attn.bias", "masked_bias")) for name in first.tensors)


# Integers


@pytest.mark.parametrize("whose", ["base", "a"])
def test_integers_are_no_floats(whose: str, family: Path, tmp_path: Path) -> None:
    for name in ("base", "a"):
        shutil.copytree(family / name, tmp_path / name)
    up = "model.layers.0.mlp.up_proj.weight"
    rewritten(tmp_path / whose, lambda c: {**c, up: (c[up] * 100).to(torch.int32)})
    (problem,) = fit_problems(checkpoint(tmp_path, "base"), [checkpoint(tmp_path, "a")])
    assert problem.startswith(f"a: tensor {up} holds ")
    assert "integers are no weights" in problem


def test_integers_in_all_models_are_no_floats(family: Path, tmp_path: Path) -> None:
    up = "model.layers.0.mlp.up_proj.weight"
    for name in ("base", "a", "b"):
        shutil.copytree(family / name, tmp_path / name)
        rewritten(tmp_path / name, lambda c: {**c, up: (c[up] * 100).to(torch.int8)})
    with pytest.raises(ValueError, match=f"base: as LlamaForCausalLM it holds integers in {up}"):
        executed(tmp_path, "benchmarks=none", "omega=null")


# Output heads


def llama(folder: Path, seed: int, tokenizer: Path, *, tied: bool = True) -> Path:
    torch.manual_seed(seed)
    LlamaForCausalLM(llama_config(tied=tied)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    return folder


def with_own_head(folder: Path, *, said: bool | None) -> None:
    """Give a model a head of its own, whatever its configuration says."""
    torch.manual_seed(9)
    rewritten(folder, lambda c: {**c, HEAD: c[EMBEDDING] + 0.1 * torch.randn(c[EMBEDDING].shape)})
    configured(folder, tie_word_embeddings=said)


@pytest.fixture
def one_untied(tmp_path: Path, tiny_population: Path) -> Path:
    """Tied `base` and `b`, and `a` with a head of its own though its configuration ties."""
    for seed, name in enumerate(("base", "a", "b")):
        llama(tmp_path / name, seed, tiny_population / "base")
    with_own_head(tmp_path / "a", said=True)
    return tmp_path


def heads(folder: Path, *names: str) -> list[Tensor]:
    """Each model's head; a tied one's is its embedding."""
    files = [load_file(folder / name / "model.safetensors") for name in names]
    return [file.get(HEAD, file[EMBEDDING]) for file in files]


def embeddings(folder: Path, *names: str) -> list[Tensor]:
    return [load_file(folder / name / "model.safetensors")[EMBEDDING] for name in names]


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("untied", ["base", "a"])
def test_one_head_of_its_own_makes_the_merge_untied(
    untied: str, said: bool, tmp_path: Path, tiny_population: Path
) -> None:
    for seed, name in enumerate(("base", "a", "b")):
        llama(tmp_path / name, seed, tiny_population / "base")
    with_own_head(tmp_path / untied, said=said)
    base, *others = (checkpoint(tmp_path, name) for name in ("base", "a", "b"))
    assert fit_problems(base, others) == []
    first, rest = matched(base, others)
    with CheckpointWriter(tmp_path / "out", first, None) as writer:
        stream_merge(first, rest, SUM, writer, seed=0)
    out = load_file(tmp_path / "out" / "model.safetensors")
    b, x, y = heads(tmp_path, "base", "a", "b")
    torch.testing.assert_close(out[HEAD], x + y - b)
    b, x, y = (load_file(tmp_path / n / "model.safetensors")[EMBEDDING] for n in ("base", "a", "b"))
    torch.testing.assert_close(out[EMBEDDING], x + y - b)
    assert (
        json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    )
    model = loads_whole(tmp_path / "out")
    assert torch.equal(model.lm_head.weight, out[HEAD])


def test_a_head_that_repeats_the_embedding_is_a_copy(tmp_path: Path) -> None:
    config = Gemma2Config(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                          num_attention_heads=2, num_key_value_heads=1, head_dim=8)  # fmt: skip
    for name in ("gemma", "llama"):
        if name == "gemma":
            Gemma2ForCausalLM(config).save_pretrained(tmp_path / name)
        else:
            LlamaForCausalLM(llama_config(tied=True)).save_pretrained(tmp_path / name)
        rewritten(tmp_path / name, lambda c: {**c, HEAD: c[EMBEDDING].clone()})
    for said, kept in ((True, set()), (None, {"llama"}), (False, {"llama", "gemma"})):
        for name in ("gemma", "llama"):
            configured(tmp_path / name, tie_word_embeddings=said)
            model = checkpoint(tmp_path, name)
            assert (model.head == HEAD) == (name in kept), (said, name)
            assert name_problem(model) is None


def test_a_head_that_is_said_to_be_there_is_missed(tmp_path: Path, tiny_population: Path) -> None:
    base = checkpoint(tmp_path, llama(tmp_path / "base", 0, tiny_population / "base").name)
    llama(tmp_path / "a", 1, tiny_population / "base")
    configured(tmp_path / "a", tie_word_embeddings=False)
    (problem,) = fit_problems(base, [checkpoint(tmp_path, "a")])
    assert problem.startswith("a: holds no output head, and its tie_word_embeddings is false")


@pytest.mark.parametrize("home", ["base", "a"])
def test_a_live_model_takes_tied_and_untied_models(home: str, one_untied: Path) -> None:
    live = LiveModel(one_untied / home, "float32", "cpu")
    ids = torch.arange(30)[None]
    for name in ("a", "b", "a", "base"):
        source = checkpoint(one_untied, name)
        live.expect(source.tensors)
        stream_checkpoint(source, live)
        with torch.no_grad():
            fresh = AutoModelForCausalLM.from_pretrained(one_untied / name).eval()
            assert torch.equal(live.model(ids).logits, fresh(ids).logits), name


def test_a_run_with_one_head_of_its_own(one_untied: Path) -> None:
    """Scored with its own head, answer for answer; merged and relaxed as a tensor of its own."""
    scored = ("benchmarks.limit=3", "benchmarks.generation={max_gen_toks: 4}")
    results = executed(one_untied, "omega=0.3", "calibration.n_samples=4", "aim.tied_head=relax",
                     "method.scale=0.5", *scored)  # fmt: skip
    (said,) = (warning for warning in results.warnings if "output head" in warning)
    assert said.startswith(
        "a: an output head unlike the embedding; the merge has a head of its own"
    )
    (folder,) = (one_untied / "cache" / "saliency").iterdir()
    saliency = Saliency.load(folder)
    assert saliency.tied == {EMBEDDING: HEAD}
    r = 1 - 0.7 * saliency.channels[HEAD] / saliency.channels[HEAD].max()
    b, x, y = heads(one_untied, "base", "a", "b")
    out = load_file(one_untied / "run" / "model" / "model.safetensors")
    torch.testing.assert_close(out[HEAD], b + 0.5 * (x + y - 2 * b) * r)
    b, x, y = embeddings(one_untied, "base", "a", "b")
    torch.testing.assert_close(out[EMBEDDING], b + 0.5 * (x + y - 2 * b))

    # The same answers as transformers gives to each model by itself, untied or not.
    for name, folder in {"a": one_untied / "a", "merged": one_untied / "run" / "model"}.items():
        alone = built(
            one_untied / "alone", "population=custom", f"population.base={folder}", "method=none",
            "population.experts=null", "tracker=none", *scored,
        )  # fmt: skip
        again = Pipeline(alone, one_untied / "run").execute()
        for benchmark, path in again.scores["base"].items.items():
            assert answers(path) == answers(results.scores[name].items[benchmark])


# Layouts, remembered


def test_a_layout_is_remembered_by_what_it_rests_on(family: Path, tmp_path: Path) -> None:
    memo = tmp_path / "layouts"
    shutil.copytree(family / "a", tmp_path / "a")
    own = layout(checkpoint(tmp_path, "a"), memo)
    (note,) = memo.iterdir()
    assert layout(checkpoint(tmp_path, "a"), memo) == own == layout(checkpoint(tmp_path, "a"))
    assert layout(checkpoint(family, "b"), memo) == own  # of the same names and settings
    assert list(memo.iterdir()) == [note]
    note.write_text(note.read_text()[:100])
    assert layout(checkpoint(tmp_path, "a"), memo) == own
    configured(tmp_path / "a", num_hidden_layers=1)
    assert layout(checkpoint(tmp_path, "a"), memo).stray
    configured(tmp_path / "a", num_hidden_layers=2)
    rewritten(tmp_path / "a", lambda c: {**c, "model.stray.weight": torch.ones(2)})
    assert layout(checkpoint(tmp_path, "a"), memo).stray == ["model.stray.weight"]
    assert len(list(memo.iterdir())) == 3


@pytest.mark.parametrize("whose", ["a", "all"])
def test_a_prefix_that_is_not_known_is_named(whose: str, family: Path, tmp_path: Path) -> None:
    for name in ("base", "a"):
        shutil.copytree(family / name, tmp_path / name)
        if whose in ("all", name):
            rewritten(tmp_path / name, lambda c: {f"policy.{n}": t for n, t in c.items()})
    base, a = checkpoint(tmp_path, "base"), checkpoint(tmp_path, "a")
    problem = name_problem(base) if whose == "all" else fit_problems(base, [a])[0]
    label = "base" if whose == "all" else "a"
    assert str(problem).startswith(f"{label}: policy. stands before its tensors' names; save the")


def answers(path: Path) -> list[Any]:
    """What was answered to each item; log-likelihoods to what another batch leaves of them."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        items = [json.loads(line) for line in lines]
    return [
        [item["text"], [round(choice["loglikelihood"], 3) for choice in item["choices"] or ()]]
        for item in items
    ]
