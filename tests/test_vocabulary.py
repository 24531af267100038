"""Vocabularies that differ: the union of tokens, or base's rows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Cli, llama_config
from hydra import compose, initialize_config_dir
from omegaconf import open_dict
from relaxations import SETTINGS
from run_records import responses_of
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AddedToken,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)

from aim_exp.aim.measure import measure
from aim_exp.aim.pull import Relaxation
from aim_exp.app import CONFIG_FOLDER
from aim_exp.checkpoint.fit import fit_problems
from aim_exp.checkpoint.live import LiveModel
from aim_exp.checkpoint.reader import Checkpoint
from aim_exp.checkpoint.vocabulary import (
    RULES,
    align,
    differs,
    embedding_rows,
    write_companions,
)
from aim_exp.checkpoint.writer import CheckpointWriter
from aim_exp.config.build import build
from aim_exp.errors import ConfigError
from aim_exp.merge import DareTies, Linear, MergeMethod, TaskArithmetic, Ties, Widen
from aim_exp.merge.stream import stream_checkpoint, stream_merge
from aim_exp.run.run import Run

SUM = TaskArithmetic(weight=1.0, scale=1.0)
TOKENS = 768
"""Of the embedded population's tokenizer, which every model here starts from."""


def make(
    folder: Path, tokenizer: Path, seed: int, added: Sequence[str], rows: int, *, tied: bool = False
) -> Checkpoint:
    """A random model with `rows` embedding rows and `added` tokens in its tokenizer."""
    torch.manual_seed(seed)
    config = llama_config(tied=tied)
    config.vocab_size = rows
    LlamaForCausalLM(config).save_pretrained(folder)
    extended = AutoTokenizer.from_pretrained(tokenizer)
    extended.add_tokens([AddedToken(token, special=True) for token in added])
    extended.save_pretrained(folder)
    return Checkpoint(folder, folder.name)


def tensors(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def expected(
    name: str,
    models: Sequence[Checkpoint],
    order: Sequence[str],
    size: int,
    weights: Sequence[float] = (1, 1),
) -> Tensor:
    """Base plus the deltas, token by token: `order` are the tokens beyond base's 768, by id.

    One that base lacks has the weighted mean over the experts that have it. None of these cases
    has a model that uses one of the first 768 rows for something else.
    """
    filled, known = [], []
    for model in models:
        own = tensors(model.folder)[name]
        tokens = AutoTokenizer.from_pretrained(model.folder).get_vocab()
        out = own.mean(0).expand(size, -1).clone()
        out[:TOKENS] = own[:TOKENS]
        known.append(set(range(TOKENS)))
        for row in range(TOKENS, size):
            token = order[row - TOKENS] if row - TOKENS < len(order) else None
            if token is None and row < len(own):
                out[row] = own[row]  # padding
            elif token in tokens and tokens[token] < len(own):
                out[row] = own[tokens[token]]
            else:
                continue
            known[-1].add(row)
        filled.append(out)
    base, *experts = filled
    result = base + sum(expert - base for expert in experts)
    for row in set(range(size)) - known[0]:
        own = [(w, e[row]) for w, e, k in zip(weights, experts, known[1:], strict=True) if row in k]
        if own:
            result[row] = sum(w * values for w, values in own) / sum(w for w, _ in own)
    return result


def merged(
    rule: str,
    models: Sequence[Checkpoint],
    folder: Path,
    relax: Relaxation | None = None,
    method: MergeMethod = SUM,
    dtype: str | None = None,
) -> Path:
    base, experts = models[0], models[1:]
    write_companions(rule, base, experts, folder / "companions")
    labels = [expert.label for expert in experts]

    def weights(name: str) -> list[float]:
        return method.weights(labels, name, 0.0)

    first, others = align(rule, base, experts, folder / "companions", weights)
    with CheckpointWriter(folder / "merged", first, dtype) as writer:
        stream_merge(first, others, method, writer, seed=0, dtype=dtype, relax=relax)
    return folder / "merged"


CASES = {
    # name: (tokens and rows of base, a, b), the union's tokens beyond the 768, its rows
    "experts add tokens": (([], 768), (["<x>", "<y>"], 770), (["<z>", "<x>"], 770), "xyz", 771),
    "one adds a pad token": (([], 768), (["<x>"], 769), ([], 768), "x", 769),
    "padding rows first": (([], 776), (["<x>"], 776), (["<y>"], 776), "xy", 776),
    "padding of other sizes": (([], 770), (["<x>"], 784), (["<y>", "<z>"], 776), "xyz", 771),
    "base lists a token that has no row": ((["<x>"], 768), ([], 768), (["<y>"], 769), "xy", 770),
    "an expert has the row that base lacks": ((["<x>"], 768), (["<x>"], 769), ([], 768), "x", 769),
    "an expert lists one that has no row": (([], 768), (["<x>"], 768), (["<y>"], 769), "y", 769),
    "base has more tokens": ((["<x>", "<y>"], 770), ([], 768), (["<y>"], 769), "xy", 770),
}  # fmt: skip


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_the_union(case: str, tied: bool, tmp_path: Path, tiny_population: Path) -> None:
    *parts, letters, size = CASES[case]
    models = [
        make(tmp_path / name, tiny_population / "base", seed, added, rows, tied=tied)
        for seed, (name, (added, rows)) in enumerate(zip(("base", "a", "b"), parts, strict=True))
    ]
    base, *experts = models
    assert any(differs(base, expert) for expert in experts)
    assert fit_problems(base, experts) == []
    out = tensors(merged("union", models, tmp_path))
    order = [f"<{letter}>" for letter in letters]
    embeddings = {"model.embed_tokens.weight"} | (set() if tied else {"lm_head.weight"})
    assert {name for name, tensor in out.items() if tensor.shape[0] == size} == embeddings
    first, *others = (tensors(model.folder) for model in models)
    for name, tensor in out.items():
        if name in embeddings:
            torch.testing.assert_close(tensor, expected(name, models, order, size), msg=name)
        else:
            deltas = sum(other[name] - first[name] for other in others)
            torch.testing.assert_close(tensor, first[name] + deltas, msg=name)

    # The written model and its tokenizer fit, and base's tokens are where they were.
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path / "merged", output_loading_info=True
    )
    model, loading = loaded
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.vocab_size == size
    before = AutoTokenizer.from_pretrained(base.folder)
    after = AutoTokenizer.from_pretrained(tmp_path / "merged")
    tokens = after.get_vocab()
    assert before.get_vocab().items() <= tokens.items()
    assert [tokens[token] for token in order] == list(range(TOKENS, TOKENS + len(order)))
    text = f"Some text {''.join(order)} and more."
    ids = after(text)["input_ids"]
    assert set(range(TOKENS, TOKENS + len(order))) <= set(ids)
    assert after(text.replace("<", "(").replace(">", ")")) == before(
        text.replace("<", "(").replace(">", ")")
    )

    # So does the live model that gets the same weights.
    live = LiveModel(base.folder, "float32", "cpu", tmp_path / "companions")
    assert live.tokenizer.get_vocab() == tokens
    stream_checkpoint(Checkpoint(tmp_path / "merged", "merged"), live)
    with torch.no_grad():
        prompt = torch.tensor([ids])
        assert torch.equal(live.model(prompt).logits, model.eval()(prompt).logits)


def test_base_cuts_to_its_rows(tmp_path: Path, tiny_population: Path) -> None:
    tokenizer = tiny_population / "base"
    base = make(tmp_path / "base", tokenizer, 0, [], 768)
    more = make(tmp_path / "a", tokenizer, 1, ["<x>", "<y>"], 770)
    out = tensors(merged("base", [base, more], tmp_path))
    wanted = tensors(more.folder)
    assert out.keys() == wanted.keys()
    for name, tensor in out.items():
        torch.testing.assert_close(tensor, wanted[name][: len(tensor)], rtol=0, atol=1e-6)
    assert len(out["lm_head.weight"]) == 768
    for file in ("tokenizer.json", "config.json"):
        before, after = (
            json.loads((f / file).read_text()) for f in (base.folder, tmp_path / "merged")
        )
        assert before == after


def test_aim_relaxes_the_extended_head(tmp_path: Path, tiny_population: Path) -> None:
    models = [
        make(tmp_path / "base", tiny_population / "base", 0, [], 768),
        make(tmp_path / "a", tiny_population / "base", 1, ["<x>"], 769),
    ]
    live = LiveModel(models[0].folder, "float32", "cpu")
    found = measure(live.model, torch.arange(40)[None], lambda n: None)
    saliency = found.on_checkpoint(live.places)
    out = tensors(merged("union", models, tmp_path, Relaxation(saliency, 0.4, SETTINGS, 0)))
    base, a = (tensors(model.folder)["lm_head.weight"] for model in models)
    s = saliency.channels["lm_head.weight"]
    relaxed = base + (a[:TOKENS] - base) * (1 - s / s.max() * 0.6)
    torch.testing.assert_close(out["lm_head.weight"], torch.cat([relaxed, a[TOKENS:]]))


METHODS: dict[str, MergeMethod] = {
    "linear": Linear(weight={"a": 0.75, "b": 0.25}),
    "task arithmetic": TaskArithmetic(weight={"a": 0.75, "b": 0.25}, scale=0.3),
    "ties": Ties(weight={"a": 0.75, "b": 0.25}, scale=0.3, density=0.1, normalize=True,
                 trim_scope="tensor"),
    "dare": DareTies(weight={"a": 0.75, "b": 0.25}, scale=2.0, density=0.1, normalize=False,
                     rescale="inv_density"),
    "widen": Widen(above_average_value_ratio=1.0, score_calibration_value=1.0,
                   compute_dtype="float32"),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", METHODS)
def test_a_token_that_base_lacks_has_the_experts_mean(
    name: str, dtype: str, tmp_path: Path, tiny_population: Path
) -> None:
    """Whatever the method, its lambda and omega: `<x>` is both experts', `<y>` a's, `<z>` b's."""
    tokenizer, method = tiny_population / "base", METHODS[name]
    models = [
        make(tmp_path / "base", tokenizer, 0, [], 776),  # with padding rows, where tokens go first
        make(tmp_path / "a", tokenizer, 1, ["<x>", "<y>"], 770),
        make(tmp_path / "b", tokenizer, 2, ["<z>", "<x>"], 771),
    ]
    for model in models[1:]:
        loaded = LlamaForCausalLM.from_pretrained(model.folder)
        loaded.to(getattr(torch, dtype)).save_pretrained(model.folder)
    models = [Checkpoint(model.folder, model.label) for model in models]
    live = LiveModel(models[0].folder, "float32", "cpu")
    saliency = measure(live.model, torch.arange(40)[None], lambda n: None)
    relax = Relaxation(saliency.on_checkpoint(live.places), 0.2, SETTINGS, 0)
    folder = merged("union", models, tmp_path, relax, method, dtype="float32")
    out, weights = tensors(folder), method.weights(["a", "b"], "", 0.0)
    tokens = AutoTokenizer.from_pretrained(folder).get_vocab()
    rows = [tokens[f"<{letter}>"] for letter in "xyz"]
    assert sorted(rows) == [768, 769, 770]
    for embedding in ("model.embed_tokens.weight", "lm_head.weight"):
        a, b = (tensors(model.folder)[embedding].float() for model in models[1:])
        x = (weights[0] * a[768] + weights[1] * b[769]) / sum(weights)
        wanted = torch.stack([x, a[769], b[768]])
        torch.testing.assert_close(out[embedding][rows], wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["PreTrainedTokenizerFast", "LlamaTokenizerFast"])
def test_an_extended_tokenizer_stays_in_bases_words(
    kind: str, tmp_path: Path, tiny_population: Path
) -> None:
    """transformers 4 wrote base's files: it must be able to read the merge's."""
    base = make(tmp_path / "base", tiny_population / "base", 0, ["<w>"], 769)
    more = make(tmp_path / "a", tiny_population / "base", 1, ["<w>", "<x>"], 770)
    token = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    before = {
        "added_tokens_decoder": {"768": {"content": "<w>", **token, "special": True}},
        "bos_token": "<s>", "clean_up_tokenization_spaces": False, "eos_token": "</s>",
        "model_max_length": 256, "tokenizer_class": kind,
    }  # fmt: skip
    (base.folder / "tokenizer_config.json").write_text(json.dumps(before))
    (base.folder / "added_tokens.json").write_text('{"<w>": 768}')
    (base.folder / "special_tokens_map.json").write_text('{"eos_token": "</s>"}')
    folder = merged("union", [base, more], tmp_path)
    after = json.loads((folder / "tokenizer_config.json").read_text())
    new = after["added_tokens_decoder"].pop("769")
    assert new == {"content": "<x>", **token, "special": True}
    assert after == before
    assert json.loads((folder / "added_tokens.json").read_text()) == {"<w>": 768, "<x>": 769}
    kept = "special_tokens_map.json"
    assert (folder / kept).read_bytes() == (base.folder / kept).read_bytes()
    assert {path.name for path in folder.iterdir()} == {
        *(path.name for path in base.folder.iterdir())
    }
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer("<w><x>")["input_ids"][-2:] == [768, 769]
    assert tokenizer.decode([5, 769], skip_special_tokens=True) == tokenizer.decode([5])


def test_weights_that_add_up_to_nothing_give_the_plain_mean(
    tmp_path: Path, tiny_population: Path
) -> None:
    tokenizer = tiny_population / "base"
    models = [make(tmp_path / "base", tokenizer, 0, [], 768)]
    models += [make(tmp_path / n, tokenizer, s, ["<x>"], 769) for s, n in enumerate("ab", 1)]
    method = TaskArithmetic(weight={"a": 1.0, "b": -1.0}, scale=1.0)
    out = tensors(merged("union", models, tmp_path, method=method))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        a, b = (tensors(model.folder)[name] for model in models[1:])
        torch.testing.assert_close(out[name][768], (a[768] + b[768]) / 2)


def test_a_nested_vocabulary(tmp_path: Path, tiny_population: Path) -> None:
    models = []
    for seed, (name, rows, added) in enumerate((("base", 768, []), ("a", 770, ["<x>", "<y>"]))):
        torch.manual_seed(seed)
        text = llama_config().to_dict() | {
            "vocab_size": rows,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 2, 2],
            },
        }
        vision = {"depth": 1, "embed_dim": 16, "hidden_size": 24, "num_heads": 2}
        config = Qwen2VLConfig(text_config=text, vision_config=vision, image_token_id=700)
        Qwen2VLForConditionalGeneration(config).save_pretrained(tmp_path / name)
        tokenizer = AutoTokenizer.from_pretrained(tiny_population / "base")
        tokenizer.add_tokens(added)
        tokenizer.save_pretrained(tmp_path / name)
        models.append(Checkpoint(tmp_path / name, name))
    assert "vocab_size" not in models[0].config
    assert fit_problems(models[0], models[1:]) == []
    folder = merged("union", models, tmp_path)
    loaded: Any = Qwen2VLForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    fresh, loading = loaded
    assert not any(loading[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert fresh.config.text_config.vocab_size == 770
    assert embedding_rows(Checkpoint(folder, "merged")) == 770
    live = LiveModel(models[0].folder, "float32", "cpu", tmp_path / "companions")
    stream_checkpoint(Checkpoint(folder, "merged"), live)
    ids = torch.tensor([[5, 768, 769]])
    with torch.no_grad():
        assert torch.equal(live.model(input_ids=ids).logits, fresh.eval()(input_ids=ids).logits)


def test_what_cannot_be_aligned_is_named(tmp_path: Path, tiny_population: Path) -> None:
    base = make(tmp_path / "base", tiny_population / "base", 0, [], 768)
    bare = make(tmp_path / "bare", tiny_population / "base", 1, ["<x>"], 769)
    for path in bare.folder.glob("token*"):
        path.unlink()
    (problem,) = fit_problems(base, [bare])
    assert problem.startswith(f"bare: {bare.folder} has no readable tokenizer")
    assert "\n" not in problem
    assert fit_problems(base, [bare], "base") == []  # needs no tokenizer


@pytest.mark.slow
def test_a_run_with_two_vocabularies(cli: Cli, tmp_path: Path, tiny_population: Path) -> None:
    tokenizer = tiny_population / "base"
    make(tmp_path / "base", tokenizer, 0, [], 768)
    make(tmp_path / "a", tokenizer, 1, ["<x>"], 769)
    make(tmp_path / "b", tokenizer, 2, [], 768)
    run = (
        "population=custom", f"population.base={tmp_path / 'base'}",
        f"population.experts={{a: {tmp_path / 'a'}, b: {tmp_path / 'b'}}}",
        "method=task_arithmetic", "tracker=none", "benchmarks.limit=2", "calibration.n_samples=4",
        "benchmarks.generation={max_gen_toks: 4}",
    )  # fmt: skip
    done = cli(*run, "save_model=true", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    said = [warning for warning in record["warnings"] if warning.startswith("vocabulary=union")]
    assert len(said) == 1
    assert "769" in said[0]
    tokens = AutoTokenizer.from_pretrained(tmp_path / "run" / "model").get_vocab()
    assert tokens["<x>"] == 768
    assert not (tmp_path / "run" / "model" / "spec.json").exists()
    # An expert is scored as it is, with its own tokenizer; the merge with the union.
    assert set(record["population_scores"]) == {"base", "a", "b"}
    cut = cli(*run, "vocabulary=base", "hydra.run.dir=cut")
    assert cut.returncode == 0, cut.stderr
    other = json.loads((tmp_path / "cut" / "result.json").read_text())
    assert "Scoring a" not in cut.stdout
    assert responses_of(other) != responses_of(record)


def built(cache: Path, *overrides: str) -> Run:
    with initialize_config_dir(str(CONFIG_FOLDER), version_base="1.3"):
        config = compose("config", [f"cache_dir={cache}", *overrides], return_hydra_config=True)
        choices = dict(config.hydra.runtime.choices)
        with open_dict(config):
            del config["hydra"]
        return build(config, choices)


def test_the_rule_counts_where_vocabularies_differ(tmp_path: Path, tiny_population: Path) -> None:
    tokenizer = tiny_population / "base"
    for seed, (name, added) in enumerate({"base": [], "a": ["<x>"], "b": []}.items()):
        make(tmp_path / name, tokenizer, seed, added, TOKENS + len(added))
    run = (
        "population=custom", f"population.base={tmp_path / 'base'}",
        f"population.experts={{a: {tmp_path / 'a'}, b: {tmp_path / 'b'}}}",
    )  # fmt: skip

    def keys(*overrides: str) -> tuple[str, list[str]]:
        plan = built(tmp_path / "cache", *run, *overrides).plan
        assert plan.merged
        return plan.merged.responses.key, [member.responses.key for member in plan.members]

    for merge, counts in {"[a,b]": True, "[b]": False}.items():
        union, cut = (keys(f"population.merge={merge}", f"vocabulary={v}") for v in RULES)
        assert (union[0] != cut[0]) == counts
        assert union[1] == cut[1]
    assert built(tmp_path / "cache", *run).recipe.own_companions == {"a"}


def test_wrong_choices_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        built(tmp_path, "vocabulary=both", "calibration.offload=disk")
    assert sorted(refused.value.problems) == [
        "calibration.offload=disk: must be none or layers",
        "vocabulary=both: must be union or base",
    ]
