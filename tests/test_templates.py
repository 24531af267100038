"""Chat templates: whose each model is asked with, and the merge saved; where answers end then."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from built_runs import built
from conftest import Cli, llama_config
from run_records import responses_of
from tiny_suite import IFEVAL, SHORT, random_model
from transformers import AutoTokenizer, GenerationConfig, LlamaForCausalLM

from aim_exp.checkpoint.live import LiveModel
from aim_exp.checkpoint.templates import (
    TEMPLATE_FILE,
    chat_template,
    template_warnings,
    write_chat_template,
)
from aim_exp.errors import ConfigError, EvaluationError
from aim_exp.evaluate.harness import Harness
from aim_exp.evaluate.responses import kept_responses
from aim_exp.run.pipeline import MODEL_FOLDER, Pipeline
from aim_exp.run.plan import Plan
from aim_exp.run.recipe import MERGED
from aim_exp.run.scoring import suite_for
from aim_exp.types import ModelRef, Suite

ASKED = "benchmarks.chat_template=true"


@pytest.fixture
def models(family: Path, tmp_path: Path) -> Path:
    """`base` has no template, `a` one of its own, `b` two."""
    folder = tmp_path / "models"
    shutil.copytree(family, folder)
    for name, template in {"a": text("a"), "b": {"default": text("b"), "brief": text("B")}}.items():
        tokenizer = AutoTokenizer.from_pretrained(folder / name)
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder / name)
    return folder


def text(mark: str) -> str:
    return "{% for m in messages %}" + mark + ": {{ m.content }}{% endfor %}"


def population(folder: Path, *more: str) -> tuple[str, ...]:
    return (
        "population=custom", f"population.base={folder / 'base'}",
        f"population.experts={{a: {folder / 'a'}, b: {folder / 'b'}}}",
        "method=linear", "omega=null", "tracker=none", *more,
    )  # fmt: skip


def score_keys(plan: Plan) -> dict[str, str]:
    merged = plan.merged
    assert merged
    return {model.name: model.scores["tiny_ifeval"].key for model in (*plan.members, merged)}


def test_whose_template_a_model_takes_is_in_its_scores_keys(models: Path, tmp_path: Path) -> None:
    def keys(*overrides: str) -> dict[str, str]:
        return score_keys(built(tmp_path, *population(models, *overrides)).plan)

    plain = keys()
    assert keys("population.chat_template=a") == plain, "nobody uses one"
    by_a = keys("population.chat_template=a", ASKED)
    assert all(by_a[name] != plain[name] for name in plain)
    table = keys("population.chat_template={base: null, a: a, b: b, merged: a}", ASKED)
    assert {name for name in table if table[name] == by_a[name]} == {"a", MERGED}


def test_a_reference_brings_its_own(models: Path, tmp_path: Path) -> None:
    more = (f"population.references={{r: {models / 'b'}}}", ASKED)
    run = built(tmp_path, *population(models, "population.chat_template=a", *more))
    templates = run.recipe.templates
    assert {name: model and model.name for name, model in templates.items()} == {
        "base": "a", "a": "a", "b": "a", "r": "r", MERGED: "a",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ([ASKED], "the tokenizer of base has no such chat template (none); name a model"),
        (["population.chat_template=a", "benchmarks.chat_template=brief"],
         "benchmarks.chat_template=brief: the tokenizer of a has no such chat template (default)"),
        (["population.chat_template=c"],
         "population.chat_template=c: there is no such model; there are base, a, b"),
        (["population.chat_template={c: a}"],
         "population.chat_template.c: there is no such model; there are base, a, b, merged"),
        (["population.chat_template=[a]"], "population.chat_template=['a']: must be a model"),
        (["population.chat_template=base", "save_model=true"], "the tokenizer of base has no"),
    ],
)  # fmt: skip
def test_a_template_that_is_not_there_is_refused(
    overrides: list[str], words: str, models: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        built(tmp_path, *population(models, *overrides))
    assert len(refused.value.problems) == 1
    assert words in refused.value.problems[0]


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in %}", "Expected an expression"),
        ("{{ raise_exception('no users') }}", "no users"),
        ("{{ messages.nothing.at_all }}", "has no attribute 'nothing'"),
        ("{{ messages[0] + 1 }}", "unsupported operand"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "access to attribute '__class__'"),
        ("{{ messages.append(1) }}", "'append' of 'list' object is unsafe"),
        ("{% for i in range(10**9) %}{% endfor %}", "Range too big"),
        ("{% include '/etc/passwd' %}", "no loader for this environment"),
        (7, "Can't compile non template nodes"),
    ],
)
def test_a_template_that_fails_is_told_with_its_key(
    template: object, words: str, models: Path, tmp_path: Path
) -> None:
    (models / "a" / TEMPLATE_FILE).unlink()
    settings = models / "a" / "tokenizer_config.json"
    written = json.loads(settings.read_text()) | {"chat_template": template}
    settings.write_text(json.dumps(written))
    with pytest.raises(ConfigError) as refused:
        built(tmp_path, *population(models, "population.chat_template=a", ASKED))
    (problem,) = refused.value.problems
    assert problem.startswith("benchmarks.chat_template=true: the chat template of a fails (")
    assert words in problem


def test_a_template_that_fails_on_an_item_is_told(tokenizer, tmp_path: Path) -> None:
    harness = Harness.in_memory(random_model(), tokenizer, batch_size=8)
    only_short = "{% if messages[0].content|length > 1 %}{{ 1 // 0 }}{% endif %}"
    suite = replace(SHORT, chat_template=True, template=only_short)
    with pytest.raises(
        EvaluationError, match=r"chat_template: the template fails on an item \(int"
    ):
        harness.evaluate(suite, [IFEVAL], tmp_path / "responses")


def test_prompts_and_the_saved_model_have_the_chosen_template(
    cli: Cli, models: Path, tmp_path: Path
) -> None:
    overrides = population(
        models, "population.chat_template={base: null, a: b, b: b, merged: a}", ASKED,
        "benchmarks.limit=2",
    )  # fmt: skip
    done = cli(*overrides, "save_model=true", "hydra.run.dir=run", cache=tmp_path)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "result.json").read_text())
    assert record["config"]["population"]["chat_template"] == {
        "base": None,
        "a": "b",
        "b": "b",
        MERGED: "a",
    }
    suite = built(tmp_path, *overrides).recipe.suite
    asked = {
        name: requests(tmp_path / "responses" / key) for name, key in responses_of(record).items()
    }
    plain, by_a, by_b = (asked_with(suite, models, mark, tmp_path) for mark in (None, "a", "b"))
    assert len(plain | by_a | by_b) == 3 * len(plain)
    assert asked == {"base": plain, "a": by_b, "b": by_b, MERGED: by_a}
    assert AutoTokenizer.from_pretrained(tmp_path / "run" / "model").chat_template == text("a")


def asked_with(suite: Suite, models: Path, mark: str | None, tmp_path: Path) -> set[str]:
    """The requests of a tokenizer that has this very template of its own, or is asked plainly."""
    live = LiveModel(models / "base", "bfloat16", "cpu")
    live.tokenizer.chat_template = text(mark) if mark else None
    harness = Harness.in_memory(live.model, live.tokenizer, batch_size=8)
    log = tmp_path / f"asked_{mark}"
    harness.evaluate(replace(suite, chat_template=mark is not None), suite.benchmarks, log)
    return requests(log)


def requests(folder: Path) -> set[str]:
    """Of the texts that were generated; how likely a gold answer is does not depend on stops."""
    kept = kept_responses(folder).items()
    return {request for request, response in kept if isinstance(response, str)}


def chat_pair(folder: Path, tiny: Path, *, generation: bool, knows_end: bool = True) -> Path:
    """`base` ends texts with </s>; `chat` ends turns with <|end|>, in its template as elsewhere."""
    marks = AutoTokenizer.from_pretrained(tiny / "base")
    if knows_end:
        marks.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    own = AutoTokenizer.from_pretrained(tiny / "base")
    own.add_special_tokens({"additional_special_tokens": ["<|end|>"]})
    own.chat_template = "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"
    end = own.convert_tokens_to_ids("<|end|>")
    if generation:
        own.eos_token = "<|end|>"
    config = llama_config()
    config.vocab_size = end + 1
    for name, tokenizer, stops in (("base", marks, 2), ("chat", own, [2, end])):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
        torch.manual_seed(1)
        if name == "chat":
            for parameter in model.parameters():
                parameter.data += 0.02 * torch.randn_like(parameter)
        stops = stops if generation else 2
        model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=stops)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def carried_out(folder: Path, tmp_path: Path, *more: str) -> Pipeline:
    run = built(
        tmp_path / "cache", "population=custom", f"population.base={folder / 'base'}",
        f"population.experts={{chat: {folder / 'chat'}}}", "method=linear", "omega=null",
        "population.chat_template={base: null, chat: chat, merged: chat}", ASKED,
        "benchmarks.limit=2", "tracker=none", "save_model=true", *more,
    )  # fmt: skip
    pipeline = Pipeline(run, tmp_path / "out")
    pipeline.execute()
    return pipeline


@pytest.mark.parametrize("has_generation_file", [True, False])
def test_a_merge_stops_where_its_template_stops(
    has_generation_file: bool, tiny_population: Path, tmp_path: Path
) -> None:
    folder = chat_pair(tmp_path / "models", tiny_population, generation=True)
    if not has_generation_file:
        (folder / "base" / "generation_config.json").unlink()
    pipeline = carried_out(folder, tmp_path)
    assert not [text for text in pipeline.results.warnings if "template" in text]
    saved = tmp_path / "out" / MODEL_FOLDER
    tokenizer, end = AutoTokenizer.from_pretrained(saved), 768
    assert tokenizer.convert_ids_to_tokens(end) == tokenizer.eos_token == "<|end|>"
    stops = GenerationConfig.from_pretrained(saved)
    assert (set(stops.eos_token_id), stops.bos_token_id) == ({2, end}, 1)
    suite = suite_for(pipeline.run, MERGED)
    assert suite.stops == ("<|end|>",)
    assert suite_for(pipeline.run, "base").stops == ()


def test_an_answer_ends_at_the_templates_stops(tokenizer, tmp_path: Path) -> None:
    harness = Harness.in_memory(random_model(), tokenizer, batch_size=8)
    plain = harness.evaluate(SHORT, [IFEVAL], tmp_path / "plain")["tiny_ifeval"]
    answer = json.loads(plain.items[0])["text"]
    stop = answer.strip()[2]
    stopping = replace(SHORT, stops=(stop,))
    ended = harness.evaluate(stopping, [IFEVAL], tmp_path / "ended")["tiny_ifeval"]
    answers = [json.loads(line)["text"] for line in ended.items]
    assert answer.startswith(answers[0])
    assert len(answers[0]) < len(answer)
    assert not any(stop in each for each in answers)
    assert requests(tmp_path / "plain").isdisjoint(requests(tmp_path / "ended"))


def test_a_template_that_does_not_go_with_its_stops_is_warned_of(
    tiny_population: Path, tmp_path: Path
) -> None:
    folder = chat_pair(tmp_path / "models", tiny_population, generation=False)
    warnings = " ".join(carried_out(folder, tmp_path).results.warnings)
    assert "chat template of chat: a turn ends with <|end|>, but answers with </s>; add" in warnings
    chat = ModelRef("chat", folder / "chat", "")
    base = ModelRef("base", tiny_population / "base", "")
    write_chat_template(folder / "chat", chat_template(chat, True), ["<|end|>"])
    (missing,) = template_warnings(chat, base, chat_template(chat, True))
    assert "the vocabulary of base lacks <|end|>" in missing
    settings = {"eos_token_id": 2}
    (folder / "chat" / "generation_config.json").write_text(json.dumps(settings))
    (differ,) = template_warnings(chat, chat, chat_template(chat, True))
    assert "its tokenizer ends answers with <|end|>, its generation_config.json does not" in differ
