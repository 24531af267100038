"""A few rows of each of the paper's six datasets, in the columns that the hub's files have."""

import json
from pathlib import Path
from typing import Any

SUBJECTS = ("anatomy", "astronomy", "philosophy")

HUMANEVAL = [
    {
        "task_id": f"HumanEval/{n}",
        "prompt": f'def plus_{n}(x: int) -> int:\n    """Add {n}."""\n',
        "canonical_solution": f"    return x + {n}\n",
        "test": f"def check(candidate):\n    assert candidate(1) == {n + 1}\n",
        "entry_point": f"plus_{n}",
    }
    for n in range(3)
]
MBPP = [
    {
        "task_id": 11 + n,
        "text": f"Write a function to multiply by {n}.",
        "code": f"def times(x):\n    return {n} * x",
        "test_list": [f"assert times({x}) == {n * x}" for x in (1, 2, 3)],
        "test_setup_code": "",
        "challenge_test_list": [],
    }
    for n in range(2, 5)
]
GSM8K = [
    {
        "question": f"Ann has {n} boxes of 500 pens. How many pens is that?",
        "answer": f"{n} * 500 = <<{n}*500={n * 500}>>{n * 500}\n#### {n * 500:,}",
    }
    for n in range(1, 8)
]
MATH = [
    {
        "problem": f"What is $\\frac{{{n}}}{{7}} + 1$?",
        "level": "Level 1",
        "type": "Prealgebra",
        "solution": f"It is $\\frac{{{n}}}{{7}} + 1 = \\boxed{{\\frac{{{n + 7}}}{{7}}}}$.",
    }
    for n in range(1, 4)
]
IFEVAL = [
    {
        "key": 1000,
        "prompt": "Write without commas, all in lower case.",
        "instruction_id_list": ["punctuation:no_comma", "keywords:existence"],
        "kwargs": [{}, {"keywords": ["river", "stone"]}],
        "gold": "a river and a stone",
    },
    {
        "key": 1001,
        "prompt": "Answer with JSON.",
        "instruction_id_list": ["detectable_format:json_format"],
        "kwargs": [{}],
        "gold": '{"a": 1}',
    },
    {
        "key": 1002,
        "prompt": "Write in French.",
        "instruction_id_list": ["language:response_language"],
        "kwargs": [{"language": "fr"}],
        "gold": "Bonjour tout le monde, je suis content de vous voir aujourd'hui.",
    },
]


def mmlu(subject: str) -> list[dict[str, Any]]:
    return [
        {
            "question": f"Which letter is number {n} ({subject})?",
            "subject": subject,
            "choices": ["a", "b", "c", "d"],
            "answer": n % 4,
        }
        for n in range(6)
    ]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_datasets(folder: Path) -> None:
    """The six datasets; three of MMLU's subjects."""
    write_rows(folder / "openai_humaneval" / "test.jsonl", HUMANEVAL)
    write_rows(folder / "mbpp" / "test.jsonl", MBPP)
    for split in ("train", "test"):
        write_rows(folder / "gsm8k" / f"{split}.jsonl", GSM8K)
    write_rows(folder / "math" / "test.jsonl", MATH)
    for subject in SUBJECTS:
        for split in ("dev", "test"):
            write_rows(folder / "mmlu" / subject / f"{split}.jsonl", mmlu(subject))
    rows = [{key: value for key, value in row.items() if key != "gold"} for row in IFEVAL]
    write_rows(folder / "ifeval" / "train.jsonl", rows)
