from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmlab.data.grammar import (
    TASKS,
    Chooser,
    documents,
    entropy_bits,
    is_held_out,
    recall,
    sample,
    stories,
    stream,
    sums,
    tool_calls,
)
from slmlab.data.grammar.tools import TOOLS
from slmlab.data.grammar.words import words
from tests.data.oracles import coloured_thing, recall_answer, stories_answer, sums_answer

ORACLES: dict[str, Callable[[str], str]] = {
    "sums": sums_answer,
    "recall": recall_answer,
    "stories": stories_answer,
}
seeds = st.integers(0, 2**32)
splits = st.sampled_from(["training", "evaluation"])


@given(seeds, st.integers(1, 10_000))
def test_a_choice_is_in_range(seed: int, count: int) -> None:
    assert 0 <= Chooser(random.Random(seed)).index(count) < count


def test_choices_are_uniform() -> None:
    chooser = Chooser(stream("test", 0))
    seen = Counter(chooser.index(7) for _ in range(70_000))
    assert sorted(seen) == list(range(7))
    assert all(abs(count - 10_000) < 500 for count in seen.values())  # 5 standard deviations


@given(seeds, st.integers(0, 20))
def test_distinct_picks_are_distinct(seed: int, count: int) -> None:
    picked = Chooser(random.Random(seed)).pick_distinct(range(20), count)
    assert len(set(picked)) == count and set(picked) <= set(range(20))


def test_a_choice_without_options_is_refused() -> None:
    with pytest.raises(ValueError, match="count is 0"):
        Chooser(random.Random(0)).index(0)


def test_a_repeated_word_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        words("red blue red")


def test_streams_of_different_names_or_seeds_differ() -> None:
    first = {stream(n, s).random() for n in ("training", "evaluation", "x") for s in range(50)}
    assert len(first) == 150


@pytest.mark.parametrize("task", sorted(ORACLES))
@given(seed=seeds, split=splits)
def test_the_answer_follows_from_the_prompt(task: str, seed: int, split: str) -> None:
    drawn = sample(task, random.Random(seed), split)
    assert drawn.answer == ORACLES[task](drawn.prompt)


@given(seed=seeds, split=splits)
def test_a_tool_call_is_json_for_what_was_said(seed: int, split: str) -> None:
    drawn = sample("tool_calls", random.Random(seed), split)
    said = re.fullmatch(r"<\|user\|>\n(.+)\n<\|assistant\|>\n", drawn.prompt)
    assert said is not None
    call = json.loads(drawn.answer)
    assert drawn.answer == json.dumps(call)
    tool = next(tool for tool in TOOLS if tool.name == call["tool"])
    assert list(call["arguments"]) == [name for name, _ in tool.arguments]
    for name, options in tool.arguments:
        meant = {option.meant: option.spoken for option in options}
        assert meant[call["arguments"][name]] in said[1]


@given(seed=seeds, split=splits)
def test_a_story_has_four_to_eight_sentences(seed: int, split: str) -> None:
    text = sample("stories", random.Random(seed), split).text
    assert 4 <= len(re.findall(r"\.(?: |$)", text)) <= 8
    assert "{" not in text and "  " not in text


@given(seed=seeds, split=splits)
def test_recall_asks_often_and_never_twice_in_a_row(seed: int, split: str) -> None:
    text = sample("recall", random.Random(seed), split).text
    stored, asked = text.removeprefix("store:\n").split("ask:\n")
    pairs, queries = stored.splitlines(), asked.splitlines()
    assert 3 <= len({pair.split(" ")[0] for pair in pairs}) == len(pairs) <= 6
    assert 4 <= len(queries) <= 10
    assert set(queries) <= set(pairs)
    assert all(first != second for first, second in itertools.pairwise(queries))


@given(seed=seeds)
def test_training_never_shows_a_held_out_sum(seed: int) -> None:
    for line in sample("sums", random.Random(seed)).text.split("\n"):
        a, b = map(int, line.split("=")[0].split("+"))
        assert not is_held_out("sums", min(a, b), max(a, b))


@given(seed=seeds)
def test_training_never_shows_a_held_out_pair(seed: int) -> None:
    stored, _ = sample("recall", random.Random(seed)).text.split("ask:\n")
    for pair in stored.removeprefix("store:\n").splitlines():
        assert not is_held_out("recall", *pair.split(" "))


def test_the_splits_share_no_combination() -> None:
    for tool in TOOLS:
        shown = set(tool_calls.combinations("training", tool))
        hidden = set(tool_calls.combinations("evaluation", tool))
        assert shown and hidden and not shown & hidden
    assert not set(stories.objects("training")) & set(stories.objects("evaluation"))
    for key in recall.LEXICON.keys:
        shown_values = set(itertools.chain(*recall.values("training", key)))
        hidden_values = set(itertools.chain(*recall.values("evaluation", key)))
        assert shown_values and hidden_values and not shown_values & hidden_values


def test_a_sum_and_its_mirror_are_in_one_split() -> None:
    hidden = set(sums.pairs("evaluation"))
    assert hidden == {(b, a) for a, b in hidden}
    assert 0.04 < len(hidden) / sums.OPERANDS**2 < 0.06
    assert len(hidden) + len(sums.pairs("training")) == sums.OPERANDS**2


@pytest.mark.parametrize("task", TASKS)
def test_every_evaluation_sample_holds_an_unseen_combination(task: str) -> None:
    shown = {
        "tool_calls": lambda d: json.loads(d.answer)["arguments"],
        "sums": lambda d: d.prompt.split("\n")[-1],
        "recall": lambda d: d.prompt.split("\n")[-1] + d.answer,
        "stories": lambda d: coloured_thing(d.prompt),
    }[task]
    training, evaluation = (
        {
            (json.loads(d.answer)["tool"] if task == "tool_calls" else "", str(shown(d)))
            for d in itertools.islice(documents(0, (task,), split=split), 2000)
        }
        for split in ("training", "evaluation")
    )
    assert training and evaluation and not training & evaluation


@pytest.mark.parametrize("task", TASKS)
def test_entropy_agrees_with_a_sample(task: str) -> None:
    rng = stream("test", 1)
    bits = [sample(task, rng).bits for _ in range(5000)]
    mean = sum(bits) / len(bits)
    error = (sum((b - mean) ** 2 for b in bits) / len(bits) ** 2) ** 0.5
    assert abs(mean - entropy_bits(task)) < 5 * error


def test_documents_repeat_with_the_seed_and_differ_without() -> None:
    def first(seed: int, **options: str) -> list[str]:
        return [d.text for d in itertools.islice(documents(seed, **options), 100)]  # type: ignore[arg-type]

    assert first(3) == first(3)
    assert not set(first(3)) & set(first(4))
    assert not set(first(3)) & set(first(3, name="another"))


def test_the_training_stream_is_pinned() -> None:
    """The embedded models' cards name this stream: a change of one word is a new corpus."""
    digest = hashlib.sha256()
    for drawn in itertools.islice(documents(0), 2000):
        digest.update(drawn.text.encode() + b"\0")
    assert digest.hexdigest() == "da6aed939ef479566b1bcc5110f0d558ac91edc3713f62cf8626329e3ff21b72"


def test_weights_are_frequencies() -> None:
    draws = itertools.islice(documents(0, ("sums", "recall", "stories"), (3, 0, 1)), 4000)
    seen = Counter(drawn.task for drawn in draws)
    assert set(seen) == {"sums", "stories"}
    assert abs(seen["sums"] - 3000) < 140  # 5 standard deviations


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ("chess",)}, "task is 'chess'"),
        ({"tasks": ()}, "tasks is empty"),
        ({"split": "test"}, "split is 'test'"),
        ({"weights": (1.0,)}, "weights is"),
        ({"weights": (1.0, 1.0, -1.0, 1.0)}, "weights is"),
        ({"weights": (0.0,) * 4}, "weights is"),
        ({"weights": (float("nan"),) * 4}, "weights is"),
    ],
)
def test_bad_arguments_are_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        documents(0, **options)


def test_a_seed_in_place_of_a_generator_is_refused() -> None:
    with pytest.raises(TypeError, match="rng is a int"):
        sample("sums", 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="task is"):
        entropy_bits("chess")
