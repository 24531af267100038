"""Own tasks: which files they are of, what is in their keys, and what is known before a model."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_suite import TINY, Oracle, write_tasks

from aim_exp.errors import EvaluationError
from aim_exp.evaluate.check import check_suite
from aim_exp.evaluate.harness import evaluate_task
from aim_exp.evaluate.loading import load_task
from aim_exp.evaluate.spec import task_spec
from aim_exp.types import Benchmark, Suite

ACC = "{metric: acc, aggregation: mean, higher_is_better: true}"
ITEMS = [{"q": f"{i} + 1 =", "c": [f" {i + k}" for k in range(3)], "a": i % 3} for i in range(6)]


def task(
    folder: Path, name: str, *more: str, items: Any = ITEMS, data: Path | None = None, **keys: str
) -> str:
    """The text of a task over items that are written to `data`."""
    data = data or folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(item) + "\n" for item in items))
    settings = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": f"{{data_files: {{test: {data}}}}}",
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": '"{{q}}"',
        "doc_to_choice": '"{{c}}"',
        "doc_to_target": "a",
        "metric_list": f"[{ACC}]",
    } | keys
    return "\n".join([*(f"{key}: {value}" for key, value in settings.items()), *more]) + "\n"


def suite_of(folder: Path | None, *benchmarks: Benchmark, **settings: Any) -> Suite:
    return Suite("own", benchmarks, task_folder=folder, **settings)


WORDS = Benchmark("words", "words")


# What a task reads


def test_every_file_that_a_task_reads_is_in_its_key(tmp_path: Path) -> None:
    folder, outside = tmp_path / "tasks", tmp_path / "outside"
    for name in ("tasks/deep", "outside/set"):
        (tmp_path / name).mkdir(parents=True)
    (outside / "base.yaml").write_text(
        "include: more_yaml\nprocess_docs: !function functions.same\n"
    )
    (outside / "more_yaml").write_text("num_fewshot: 0\n")
    (outside / "functions.py").write_text("def same(items): return items\n")
    (outside / "names.txt").write_text("a")
    (outside / "set" / "rows.parquet").write_text("b")
    (folder / "words.yaml").write_text(
        task(
            folder, "words", f"include: {outside}/base.yaml",
            f"metadata: {{version: 1, names: {outside}/names.txt, data_dir: {outside}/set}}",
            data=outside / "words.jsonl",
        )
    )  # fmt: skip
    (folder / "deep" / "prompt.md").write_text("c")
    suite = suite_of(folder, WORDS)
    read = [*folder.rglob("*"), *outside.rglob("*")]
    files = [path for path in read if path.is_file()]
    assert len(files) == 8
    spec = task_spec(suite, WORDS)
    for path in files:
        content = path.read_bytes()
        path.write_bytes(content + b"\n")
        assert task_spec(suite, WORDS) != spec, path
        path.write_bytes(content)
        assert task_spec(suite, WORDS) == spec
    (outside / "other.txt").write_text("of nobody")
    (folder / "__pycache__").mkdir()
    (folder / "__pycache__" / "x.pyc").write_text("made by python")
    assert task_spec(suite, WORDS) == spec


def test_a_moved_folder_has_the_same_key(tmp_path: Path) -> None:
    specs = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        text = task(tmp_path, "words", data=tmp_path / "words.jsonl")
        (tmp_path / name / "words.yaml").write_text(text)
        specs.append(task_spec(suite_of(tmp_path / name, WORDS), WORDS))
        by_path = Benchmark("words", str(tmp_path / name / "words.yaml"))
        specs.append(task_spec(suite_of(None, by_path), by_path))
    assert specs[0] == specs[2]
    assert specs[1] == specs[3]


def test_items_that_were_corrected_are_scored_again(tmp_path: Path) -> None:
    (tmp_path / "words.yaml").write_text(task(tmp_path, "words"))
    suite = suite_of(tmp_path, WORDS)
    assert evaluate_task(First(), suite, WORDS).scores.metrics["acc,none"] == pytest.approx(1 / 3)
    task(tmp_path, "words", items=[{**item, "a": 0} for item in ITEMS])
    assert evaluate_task(First(), suite, WORDS).scores.metrics["acc,none"] == 1.0


class First(Oracle):
    """Prefers the first choice."""

    def loglikelihood(self, requests):
        return [(-float(request.idx), False) for request in requests]


def test_built_in_items_are_those_of_the_task_whatever_the_benchmark_is_called() -> None:
    renamed, mbpp = Benchmark("p", "aim_tiny_mbpp"), Benchmark("tiny_mbpp", "aim_tiny_mbpp")
    assert task_spec(TINY, renamed) == task_spec(TINY, mbpp)
    swapped = Benchmark("tiny_math", "aim_tiny_mbpp")
    assert task_spec(TINY, swapped) == task_spec(TINY, mbpp)
    other = Benchmark("arc", "arc_easy")
    assert task_spec(replace(TINY, benchmarks=(other,)), other)["items"] is None


# Files of tasks and groups


@pytest.mark.parametrize("suffix", ["yaml", "yml"])
def test_a_task_is_found_by_name_and_by_path(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"file.{suffix}"
    path.write_text(task(tmp_path, "words"))
    for folder, name in ((tmp_path, "words"), (None, str(path))):
        benchmark = Benchmark("words", name)
        assert check_suite(suite_of(folder, benchmark)) == []
        scores = evaluate_task(First(), suite_of(folder, benchmark), benchmark).scores
        assert (scores.n, scores.metrics["acc,none"]) == (6, pytest.approx(1 / 3))


def test_a_group_of_own_tasks_and_lm_evals(tmp_path: Path) -> None:
    """With settings per member, and a group within."""
    data = tmp_path / "data" / "ai2_arc" / "ARC-Easy"
    data.mkdir(parents=True)
    rows = [{"id": str(i), "question": f"{i}?", "answerKey": "AB"[i % 2],
             "choices": {"text": ["x", "y"], "label": ["A", "B"]}} for i in range(4)]  # fmt: skip
    for split in ("train", "validation", "test"):
        (data / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "one.yml").write_text(task(tasks, "one"))
    (tasks / "two.yaml").write_text(task(tasks, "two", "fewshot_split: test"))
    (tasks / "mine.yaml").write_text(
        "group: mine\ntask:\n  - one\n  - {task: arc_easy, num_fewshot: 2}\n"
        "  - {group: inner, task: [{task: two, num_fewshot: 1}], aggregate_metric_list: "
        "[{metric: acc}]}\naggregate_metric_list: [{metric: acc, weight_by_size: true}]\n"
    )
    mine = Benchmark("mine", "mine")
    suite = suite_of(tasks, mine, data_dir=tmp_path / "data")
    assert check_suite(suite) == []
    loaded = load_task(suite, mine).tasks["tasks"]
    shots = {name: task.config.num_fewshot for name, task in loaded.items()}
    assert shots == {"one": 0, "arc_easy": 2, "two": 1}
    scores = evaluate_task(First(), suite, mine).scores
    assert (scores.n, scores.metrics["acc,none"]) == (16, pytest.approx((2 + 2 + 2) / 16))


UNREADABLE = {
    "an include": ("task: words\ninclude: absent_yaml\n", "No such file or directory"),
    "YAML": ('task: words\ndoc_to_text: "{{q}}: "x\n', "line 2, column"),
    "an older group": ("group: mine\ntask: words\ndataset_path: json\n", "write `tag: mine`"),
    "a group of one": ("group: words\ntask: other\n", "write `task: [other]`"),
    "a group without a name": ("task: [words, other]\n", "add `group: NAME`"),
}


@pytest.mark.parametrize("what", UNREADABLE)
@pytest.mark.parametrize("by_path", [False, True])
def test_a_file_that_cannot_be_read_is_named_with_the_reason(
    what: str, by_path: bool, tmp_path: Path
) -> None:
    text, reason = UNREADABLE[what]
    path = tmp_path / "words.yaml"
    path.write_text(text)
    benchmark = Benchmark("words", str(path) if by_path else "words")
    (problem,) = check_suite(suite_of(None if by_path else tmp_path, benchmark))
    assert problem.startswith(f"benchmarks: words: task={benchmark.task}: there is no such task; ")
    assert f"{path} cannot be read: " in problem
    assert reason in problem
    assert "\n" not in problem


def test_a_group_that_names_no_task_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(task(tmp_path, "one"))
    (tmp_path / "mine.yaml").write_text("group: mine\ntask: [one, oen]\n")
    (problem,) = check_suite(suite_of(tmp_path, Benchmark("mine", "mine")))
    assert "the group names oen; did you mean one" in problem


def test_a_name_of_two_files_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(task(tmp_path, "words"))
    (tmp_path / "b.yaml").write_text(task(tmp_path, "words"))
    (problem,) = check_suite(suite_of(tmp_path, Benchmark("b", str(tmp_path / "b.yaml"))))
    assert f"words is in {tmp_path / 'a.yaml'} already" in problem


# What makes scores void


VOID: dict[str, tuple[dict[str, Any], str]] = {
    "a target without its column": (
        {"doc_to_target": "answer"}, "doc_to_target: of q, c, a, its items lack the column 'answer'"
    ),
    "a question without its column": ({"doc_to_text": "question"}, "lack the column 'question'"),
    "a template without its column": ({"doc_to_text": '"{{question}}"'}, "'question' is undefined"),
    "no answer among the choices": (
        {"items": [{**item, "a": -1} for item in ITEMS]}, "no item's answer is one of its choices"
    ),
    "no answer among the first's choices": (
        {"items": [{**item, "a": 3} for item in ITEMS]}, "an answer is none of its choices, which"
    ),
    "more examples than items": ({"num_fewshot": "6"}, "num_fewshot=6: there are 5 other items"),
    "a metric that is not there": (
        {"metric_list": "[{metric: accuracy_, aggregation: mean, higher_is_better: true}]"},
        "metric=accuracy_",
    ),
    "an aggregation that is not there": (
        {"metric_list": "[{metric: acc, aggregation: meen, higher_is_better: true}]"},
        "acc: there is no such aggregation",
    ),
    "a filter that is not there": (
        {"filter_list": "[{name: f, filter: [{function: take_frist}]}]"}, "take_frist"
    ),
    "a metric in percent": (
        {"output_type": "generate_until", "doc_to_choice": "null", "doc_to_target": '"{{c[a]}}"',
         "generation_kwargs": '{until: ["."]}',
         "metric_list": "[{metric: bleu, aggregation: bleu, higher_is_better: true}]"},
        "bleu,none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", VOID)
def test_what_makes_a_score_void_is_refused_before_any_model(what: str, tmp_path: Path) -> None:
    settings, reason = VOID[what]
    (tmp_path / "words.yaml").write_text(task(tmp_path, "words", **settings))
    metric = "bleu,none" if what == "a metric in percent" else None
    (problem,) = check_suite(suite_of(tmp_path, replace(WORDS, metric=metric)))
    assert problem.startswith("benchmark words")
    assert reason in problem
    assert "\n" not in problem


def test_a_benchmarks_metric_must_be_the_tasks(tmp_path: Path) -> None:
    (tmp_path / "words.yaml").write_text(task(tmp_path, "words"))
    for metric in ("acc_norm,none", "acc,strict", "acc"):
        (problem,) = check_suite(suite_of(tmp_path, replace(WORDS, metric=metric)))
        assert problem == (
            f"benchmark words (words).metric={metric}: there is no such metric; it gives acc,none"
        )
    assert check_suite(suite_of(tmp_path, replace(WORDS, metric="acc,none"))) == []


def test_a_group_must_aggregate_the_metric(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(task(tmp_path, "one"))
    group = "group: mine\ntask: [one]\naggregate_metric_list: [{metric: METRIC}]\n"
    for metric, problems in (("acc", 0), ("acc_norm", 1)):
        (tmp_path / "mine.yaml").write_text(group.replace("METRIC", metric))
        mine = Benchmark("mine", "mine", metric="acc,none")
        assert len(check_suite(suite_of(tmp_path, mine))) == problems


def test_percentages_need_a_scale(tmp_path: Path) -> None:
    settings = VOID["a metric in percent"][0]
    (tmp_path / "words.yaml").write_text(task(tmp_path, "words", **settings))
    scaled = replace(WORDS, metric="bleu,none", scale=(0.0, 100.0))
    assert check_suite(suite_of(tmp_path, scaled)) == []


def test_answers_that_are_no_choice_are_counted(tmp_path: Path) -> None:
    labels = [0, 3, -1, 1, 2, "nine"]
    items = [
        {**item, "a": label, "t": str(label)} for item, label in zip(ITEMS, labels, strict=True)
    ]
    for item in items:  # a column of one type
        item["a"] = item["a"] if isinstance(item["a"], int) else 7
    (tmp_path / "words.yaml").write_text(task(tmp_path, "words", items=items))
    (warning,) = evaluate_task(First(), suite_of(tmp_path, WORDS), WORDS).scores.warnings
    assert warning.startswith("benchmark words: the answer of 3 of 6 items is none of their ")
    assert "item 1 has 3, and 3 choices" in warning


@pytest.mark.parametrize("split", [(), ("fewshot_split: test",)])
@pytest.mark.parametrize("shots", [1, 3, 5])
def test_no_item_is_among_its_own_examples(
    split: tuple[str, ...], shots: int, tmp_path: Path
) -> None:
    (tmp_path / "words.yaml").write_text(task(tmp_path, "words", *split))
    words = replace(WORDS, num_fewshot=shots)
    prompts = Prompts()
    scores = evaluate_task(prompts, suite_of(tmp_path, words), words).scores
    assert len(prompts.seen) == 18
    for question, examples in prompts.seen:
        assert len(examples) == shots == len(set(examples))
        assert question not in examples
    warnings = [text for text in scores.warnings if "its examples are other items" in text]
    assert len(warnings) == (not split)


class Prompts(First):
    """Keeps each prompt's question, and those of its examples."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[str]]] = []

    def loglikelihood(self, requests):
        for request in requests:
            *examples, question = request.args[0].split("\n\n")
            starts = [example.partition("=")[0] + "=" for example in examples]
            self.seen.append((question, starts))
        return super().loglikelihood(requests)


def test_examples_of_a_split_of_their_own_are_lm_evals(tmp_path: Path) -> None:
    files = {}
    for name in ("train", "test"):
        files[name] = tmp_path / f"{name}.jsonl"
        files[name].write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    kwargs = f"{{data_files: {{train: {files['train']}, test: {files['test']}}}}}"
    text = task(tmp_path, "words", "training_split: train", dataset_kwargs=kwargs)
    (tmp_path / "words.yaml").write_text(text)
    words = replace(WORDS, num_fewshot=6)
    assert evaluate_task(First(), suite_of(tmp_path, words), words).scores.warnings == []
    with pytest.raises(EvaluationError, match="num_fewshot=7: there are 6"):
        load_task(suite_of(tmp_path, words), replace(words, num_fewshot=7))


def test_a_suite_of_code_on_built_in_items_is_tried_out(tmp_path: Path) -> None:
    suite = write_tasks(tmp_path, own=task(tmp_path, "own", custom_dataset="!function items.load",
                        dataset_kwargs="{kind: mmlu}", doc_to_text="prompt",
                        doc_to_choice="choices", doc_to_target="label"))  # fmt: skip
    assert check_suite(replace(suite, benchmarks=(Benchmark("own", "own"),))) == []
