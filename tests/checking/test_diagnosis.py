"""The sentence a learner gets: a named mistake, a pattern, or the plain difference."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slmlab.checking import Close, Diagnosis, Exact, Exercise, Invariant, diagnose, run
from slmlab.checking.diagnosis import matching_mistakes
from slmlab.checking.numbers_text import shown
from slmlab.checking.values import plain
from tests.checking.fake_topic import (
    EXERCISES,
    absmax_int8,
    cache_bytes,
    make_exercise,
    one_scale,
    query_heads,
)
from tests.checking.test_values import Liar

INT8, BYTES = EXERCISES


def of(exercise: Exercise, function: Callable[..., Any]) -> Diagnosis:
    found = diagnose(exercise, run(exercise, function))
    assert found is not None
    return found


def test_a_known_mistake_gets_its_sentence_and_the_smallest_case() -> None:
    found = of(INT8, lambda w: one_scale(w))
    assert found.sentence == "One scale was used for the whole matrix."
    assert found.counterexample is not None
    assert found.counterexample.sentence == (
        "Smallest case: w = [[1.0, 0.5], [10.0, 5.0]], your answer [[13, 6], [127, 64]], "
        "wanted [[127, 64], [127, 64]]."
    )


def test_units_and_names_stand_in_the_counterexample() -> None:
    found = of(BYTES, query_heads)
    assert found.mistake is not None and found.mistake.name == "query heads"
    example = found.counterexample
    assert example is not None
    assert (example.yours, example.wanted) == ("384 B", "96 B")
    assert dict(example.given)["tokens"] == "1"


def test_a_mistake_must_match_in_every_case() -> None:
    def at_first(config: dict[str, int], tokens: int) -> int:
        return query_heads(config, tokens) if tokens == 1 else cache_bytes(config, tokens) + 7

    assert of(BYTES, at_first).mistake is None


def test_a_variant_gets_the_sentence_of_its_mistake() -> None:
    def twice(budget: int) -> int:
        return 2 * budget

    def thrice(budget: int) -> int:
        return 3 * budget

    spec = make_exercise(lambda budget: budget, [{"budget": 3}, {"budget": 5}], wrong=(twice,))
    first, *others = spec.mistakes
    spec = replace(spec, mistakes=(replace(first, variants=(thrice,)), *others))
    for answer in (lambda budget: budget + budget, lambda budget: 4 * budget - budget):
        assert of(spec, answer).mistake is spec.mistakes[0]
    # One of the two must explain every case.
    assert of(spec, lambda budget: (2 if budget == 3 else 3) * budget).mistake is None


def test_without_arguments_there_is_no_smallest_case() -> None:
    def near(arguments: dict[str, Any], output: Any) -> str | None:
        return None if 9 < output < 11 else "The answer is far off."

    spec = make_exercise(lambda: 10.0, [{}], Invariant(near), unit="MB")
    found = of(spec, lambda: 109.7).counterexample
    assert found is not None and found.sentence == "Your answer: 109.7 MB."
    told = of(make_exercise(lambda: 10.0, [{}], Close()), lambda: 12.0).counterexample
    assert told is not None and told.sentence == "Your answer: 12.0; wanted: 10.0."
    raised = of(spec, lambda: 1 / 0).counterexample
    assert raised is not None and raised.sentence == ""


def test_a_mistake_that_raises_is_matched_by_what_it_raises() -> None:
    def overruns(x: list[float]) -> float:
        return x[len(x)]

    spec = make_exercise(lambda x: x[-1], [{"x": [1.0]}, {"x": [2.0, 3.0]}], wrong=(overruns,))
    assert of(spec, lambda x: x[len(x) + 3]).mistake is spec.mistakes[0]
    assert "ZeroDivisionError" in of(spec, lambda x: 1 / 0).sentence


def test_a_passing_run_matches_nothing() -> None:
    result = run(INT8, absmax_int8)
    assert diagnose(INT8, result) is None and matching_mistakes(INT8, result) == ()


def test_a_mistake_in_another_dtype_is_still_recognised() -> None:
    found = of(INT8, lambda w: one_scale(w).float())
    assert found.mistake is not None and found.mistake.name == "one scale"
    assert "dtype of the answer differs as well" in found.sentence


def test_unattempted_points_to_the_first_hint() -> None:
    def blank(w: Any) -> Any:
        raise NotImplementedError

    assert of(INT8, blank) == Diagnosis(
        "Not started: the body still raises NotImplementedError. "
        "First hint: hint('fake.absmax_int8')."
    )


T = torch.tensor
MATRIX = T([[1.0, 2.0], [3.0, 5.0]])
SQUARES = make_exercise(lambda x: x * 1.0, [{"x": MATRIX}, {"x": MATRIX[:1] + 1}])
ONE = make_exercise(lambda x: x * 1.0, [{"x": MATRIX}])
NUMBERS = make_exercise(lambda x: x / 3, [{"x": 5.0}, {"x": 8.0}, {"x": 13.0}])
LONG = make_exercise(lambda x: x * 1.0, [{"x": torch.arange(1.0, 25.0).reshape(4, 6)}])


@pytest.mark.parametrize(
    ("spec", "function", "words"),
    [
        (SQUARES, lambda x: None, "returned None: is a return missing?"),
        (SQUARES, lambda x: x * 4, "Every answer is off by exactly a factor of 4: 4 times too lar"),
        (SQUARES, lambda x: x / 8, "off by exactly a factor of 8: 8 times too small"),
        (NUMBERS, lambda x: x / 4.5, "off by exactly a factor of 1.5: 1.5 times too small"),
        (NUMBERS, lambda x: x / 3 * (4 if x > 5 else 1), "In the cases that fail, every answer is"),
        (SQUARES, lambda x: -x, "right but for the sign"),
        (SQUARES, lambda x: -2 * x, "factor of -2"),
        (SQUARES, lambda x: x * T([1.0, -1.0]), "the sign is wrong in 3 of 6 numbers"),
        (SQUARES, lambda x: x + 1, "too large by exactly 1"),
        (SQUARES, lambda x: x.T if x.shape[0] == x.shape[1] else x, "transposed"),
        (SQUARES, lambda x: x.flip(1), "their order is not"),
        (ONE, lambda x: x / (x - 1), "1 of 4 numbers is infinite"),
        (ONE, lambda x: x + 0 / (x - 1), "1 of 4 numbers is NaN"),
        (SQUARES, lambda x: x[0], "shape (2,), wanted (1, 2)"),
        (SQUARES, lambda x: x.double(), "the dtype is not: float64, wanted float32"),
        (SQUARES, lambda x: x.numpy(), "numpy.ndarray, wanted torch.Tensor"),
        (SQUARES, lambda x: Liar(), "you return Liar, wanted torch.Tensor"),
        (NUMBERS, lambda x: x // 3, "cut to a whole number"),
        (NUMBERS, lambda x: x**2, "The number is 15.0 times too large"),
        (NUMBERS, lambda x: 2 - x * x, "The number is below 0, the right one above"),
        (LONG, lambda x: x + (x > 6) * x**2, "Row 0 is right in the smallest case"),
        (LONG, lambda x: x + (x % 6 > 2) * x**2, "Columns 0, 1, 5 are right"),
        (LONG, lambda x: x + (x % 7 == 0), "3 of 24 numbers differ, by 1.0 at most"),
        (SQUARES, lambda x: x * x.numel(), "changes with the input (2 and 4 in the first two)"),
        (SQUARES, lambda x, y: x, "missing a required argument: 'y'"),
    ],
)
def test_patterns(spec: Exercise, function: Callable[..., Any], words: str) -> None:
    found = of(spec, function)
    assert words in found.sentence
    assert found.mistake is None


@given(
    st.floats(0.01, 1000).filter(lambda f: abs(f - 1) > 0.01),
    st.lists(st.floats(0.5, 100), min_size=2, max_size=5),
)
def test_any_factor_is_noticed(factor: float, values: list[float]) -> None:
    spec = make_exercise(lambda x: x, [{"x": values}])
    sentence = of(spec, lambda x: [v * factor for v in x]).sentence
    said = re.search(r"a factor of ([\d.e+-]+?): ", sentence)
    assert said is not None, sentence
    assert float(said[1]) == pytest.approx(max(factor, 1 / factor), rel=1e-3)
    assert ("large" in sentence) is (factor > 1)


def test_an_invariant_gives_its_own_sentence_and_no_wanted_answer() -> None:
    def fits(arguments: dict[str, Any], output: Any) -> str | None:
        return None if output <= arguments["budget"] else "The answer is over the budget."

    spec = make_exercise(lambda budget: budget, [{"budget": 3}], Invariant(fits))
    found = of(spec, lambda budget: budget + 1)
    assert found.sentence == "The answer is over the budget."
    assert found.counterexample is not None and found.counterexample.wanted is None
    assert of(spec, lambda budget: None).sentence.startswith("Your function returned None")


def test_invariant_exercises_know_their_mistakes() -> None:
    spec = make_exercise(
        lambda budget: budget,
        [{"budget": 3}, {"budget": 5}],
        Invariant(lambda a, out: None if out <= a["budget"] else "Too much.", match=Exact()),
        wrong=(lambda budget: 2 * budget,),
    )
    assert of(spec, lambda budget: budget + budget).mistake is spec.mistakes[0]


def test_an_invariants_finding_follows_the_sentence_of_a_mistake() -> None:
    spec = make_exercise(
        lambda budget: budget,
        [{"budget": 3}, {"budget": 5}],
        Invariant(
            lambda a, out: None if out <= a["budget"] else f"The answer is {out - a['budget']} over"
        ),
        wrong=(lambda budget: 2 * budget,),
    )
    found = of(spec, lambda budget: budget + budget)
    assert found.sentence == "This is the sentence of mistake 0. The answer is 3 over."


def first_even(x: list[int]) -> int | None:
    return next((n for n in x if n % 2 == 0), None)


def under_invariant(x: Any, output: Any) -> str | None:
    return None if output == first_even(x["x"]) else "Not the first even one."


@pytest.mark.parametrize("compare", [Exact(), Close(), Invariant(under_invariant)])
def test_none_is_no_missing_return_where_it_is_an_answer(compare: Any) -> None:
    inputs = [{"x": [1]}, {"x": [2]}, {"x": [3, 4]}, {"x": [5, 7, 8]}]
    spec = make_exercise(first_even, inputs, compare)
    for answer in (lambda x: None, lambda x: None if x in ([1], [2]) else 1):
        found = of(spec, answer)
        assert "return missing" not in found.sentence
        assert "right in other cases and not in this one" in found.sentence
    always = make_exercise(first_even, inputs[1:], compare)
    assert "is a return missing?" in of(always, lambda x: None).sentence


@pytest.mark.parametrize("compare", [Exact(), Close()])
def test_an_int_beyond_floats_is_a_wrong_answer(compare: Any) -> None:
    huge = 10**400
    for reference in (lambda x: 3, lambda x: [1, 2], lambda x: 10**400 + 1):
        spec = make_exercise(reference, [{"x": 1}, {"x": 2}], compare)
        for answer in (huge, [huge, 2], -huge, 10**5000):
            found = of(spec, lambda x, answer=answer: answer)
            assert found.counterexample is not None and found.sentence


def test_an_error_shows_the_case_that_raises() -> None:
    found = of(NUMBERS, lambda x: 0.0 if x < 10 else 1 / 0)
    assert "ZeroDivisionError" in found.sentence
    assert found.counterexample is not None
    assert found.counterexample.sentence == "Smallest case: x = 13.0."


def test_the_smallest_failing_case_is_chosen_not_the_first() -> None:
    inputs = [{"x": [1.0, 2.0, 3.0]}, {"x": [4.0]}, {"x": [5.0, 6.0]}]
    spec = make_exercise(lambda x: sum(x), inputs)
    example = of(spec, lambda x: sum(x) ** 2 + len(x)).counterexample
    assert example is not None and example.given == (("x", "[4.0]"),)


def test_numbers_are_printed_to_the_digit_that_differs() -> None:
    example = of(NUMBERS, lambda x: x / 3 * 1.0001).counterexample
    assert example is not None
    assert (example.yours, example.wanted) == ("1.6668", "1.6667")


def test_a_large_answer_is_shown_where_it_differs() -> None:
    example = of(LONG, lambda x: x + (x % 7 == 0)).counterexample
    assert example is not None
    assert example.yours == "at [1, 0]: 8.0; [2, 1]: 15.0; [3, 2]: 22.0"
    assert example.wanted == "at [1, 0]: 7.0; [2, 1]: 14.0; [3, 2]: 21.0"


nested = st.recursive(
    st.integers(0, 9) | st.floats(0, 9).map(float),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=40,
)


@given(nested)
def test_no_text_shows_more_than_six_numbers(value: Any) -> None:
    text = re.sub(r"\.\.\. \d+ more", "", shown(plain(value)))
    assert len(re.findall(r"\d+(?:\.\d*)?(?:e-?\d+)?", text)) <= 6


@given(st.integers(0, 5), st.integers(0, 5))
def test_no_array_shows_more_than_six_numbers(rows: int, columns: int) -> None:
    text = shown(torch.full((rows, columns), 7.0))
    assert text.count("7.0") <= 6
    assert (text.count("7.0") == rows * columns) is (rows * columns <= 6)


def test_a_digit_count_too_long_to_print_is_described() -> None:
    assert "digits)" in shown(10**80) and "too long" in shown(10**5000)


def test_exact_names_a_float_for_an_int() -> None:
    found = of(BYTES, lambda config, tokens: float(cache_bytes(config, tokens)))
    assert "the number is right, its type is not: you return the float 96.0" in found.sentence


def test_close_answers_within_tolerance_are_not_diagnosed() -> None:
    spec = make_exercise(lambda x: x, [{"x": 1.0}], Close(rtol=0.1))
    assert diagnose(spec, run(spec, lambda x: x * 1.05)) is None
