"""The answers to GSM8K and MATH that the paper's authors accept."""

import pytest

from aim_exp.evaluate.tasks.paper.answers import final_answer, same_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}", "5"),
        (r"first \boxed{4}, then \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{4} and the answer is 5", "4"),
        (r"it is $\boxed 7$ then", "7"),
        (r"cut off: \boxed{\frac{1}{2", r"\frac{1}{2"),
        ("The answer is 5.", "5"),
        ("The answer is: 1,234\nQ 9", "1,234"),
        ("the answer is 3. No, the answer is -4.", "-4"),
        ("The answer is $x^2 + 1$.", "$x^2 + 1$"),
        ("He has 3 and then 1,200 left", "1,200"),
        ("It is 3, or 4, in the end.", "4"),
        ("costs $2.50.", "2.50"),
        ("goes down to -.5 at last", "-.5"),
        ("no idea", ""),
        ("", ""),
    ],
)
def test_the_final_answer(text: str, answer: str) -> None:
    assert final_answer(text) == answer


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\frac{1}{2}", "1/2"),
        (r"\frac{1}{2}", "0.5"),
        (r"\frac12", r"\dfrac{1}{2}"),
        ("1000", "1,000"),
        ("70,000", "70000"),
        ("72", "72 apples"),
        ("5", "5 dollars"),
        ("18", "$18"),
        ("18", r"\$18"),
        ("10", r"10\%"),
        ("5", r"5 \text{ cm}"),
        ("90", r"90^\circ"),
        ("5", "x = 5"),
        (r"2\sqrt{3}", r"\sqrt{12}"),
        ("(x+1)^2", "x^2 + 2x + 1"),
        ("(1,2)", "(1, 2)"),
        ("[2,5)", "[2, 5)"),
        (r"\text{Evelyn}", "Evelyn"),
        (r"\text{(C)}", "C"),
    ],
)
def test_equal_answers(gold: str, answer: str) -> None:
    assert same_answer(gold, answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("3", "4"),
        ("5", "-5"),
        ("2", "x^2 + 2"),
        ("3", r"3\pi"),
        ("(1,2)", "(2,1)"),
        ("[2,5)", "(2,5)"),
        (r"\frac{1}{3}", "0.33"),
        ("10", "10 or 12"),
        ("even", "odd"),
        ("5", ""),
        ("5", r"\frac{1}{"),
    ],
)
def test_unequal_answers(gold: str, answer: str) -> None:
    assert not same_answer(gold, answer)
