"""A task of following instructions, standing for IFEval: say some words in a given form."""

from random import Random

from aim_exp.population.embedded.example import Item

_WORDS = """
arm bag bed bell bird boat bone book bow box bread bus cake cap car cat chair clock coat cow cup
desk dog door drum duck egg eye farm fish flag fork frog gate goat hand hat hen horse house jar
key king lamp leaf leg lion map milk moon mouse nail nest pan pen pig pipe plate pot rain ring
road rope salt sea ship shoe sock soup spoon star sun tent tree wall wheel wolf
"""
WORDS: tuple[str, ...] = tuple(_WORDS.split())
COUNTS = {"two": 2, "three": 3, "four": 4, "five": 5}

FORMS = {
    "plain": ("", "{}"),
    "brackets": (" in brackets", "[ {} ]"),
    "quotes": (" in quotes", '" {} "'),
    "stars": (" between stars", "* {} *"),
    "end": (" and end with stop", "{} stop"),
    "start": (" and start with go", "go {}"),
}
"""Form -> how the instruction asks for it, and what it makes of the words."""

ACTIONS = ("repeat", "join", "reverse", "last")


def ifeval(rng: Random, held_out: bool) -> Item:
    """An instruction, and its kind, `instruction`."""
    action, form = rng.choice(ACTIONS), rng.choice(tuple(FORMS))
    request, words = _request(action, rng)
    instruction, shape = FORMS[form]
    return {
        "prompt": f"User: {request}{instruction}.\nBot:",
        "answer": f" {shape.format(' '.join(words))}",
        "instruction": f"{action}:{form}",
    }


def _request(action: str, rng: Random) -> tuple[str, list[str]]:
    """What to do, in English, and the words that do it."""
    if action == "repeat":
        word, count = rng.choice(WORDS), rng.choice(tuple(COUNTS))
        return f"Repeat {word} {count} times", [word] * COUNTS[count]
    words = rng.sample(WORDS, rng.randint(2, 4))
    said = ", ".join(words)
    if action == "join":
        return f"Say {said}", words
    if action == "reverse":
        return f"Say {said} backwards", words[::-1]
    return f"Say the last of {said}", words[-1:]
