"""Reduced grammars, enumerated whole: one derivation a text, exact bits, exact entropy."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest

from slmlab.data.grammar import Chooser, is_held_out, recall, stories, sums, tool_calls
from slmlab.data.grammar.tools import TOOLS
from tests.data.derivations import derivations

SPLITS = ("training", "evaluation")


def prove(generate: Callable[[Chooser], tuple[str, str]], entropy: float, at_least: int) -> None:
    texts: set[str] = set()
    answers: dict[str, str] = {}
    mass = Fraction(0)
    mean_bits = 0.0
    for (prompt, answer), probability, bits in derivations(generate):
        assert prompt + answer not in texts, f"two derivations of {prompt + answer!r}"
        assert answers.setdefault(prompt, answer) == answer, f"two answers to {prompt!r}"
        assert bits == pytest.approx(-math.log2(probability), abs=1e-9)
        texts.add(prompt + answer)
        mass += probability
        mean_bits += float(probability) * bits
    assert mass == 1
    assert len(texts) >= at_least
    assert entropy == pytest.approx(mean_bits, abs=1e-9)


@pytest.mark.parametrize("split", SPLITS)
def test_sums_are_exact(split: str) -> None:
    prove(
        lambda chooser: sums.generate(chooser, split, operands=12, lines=(1, 2)),
        sums.entropy(split, operands=12, lines=(1, 2)),
        at_least=100,
    )


def reduced_store() -> recall.Lexicon:
    """Three keys, each with at least one value in each split."""
    keys = recall.LEXICON.keys[:3]
    numbers = {
        next(n for n in recall.LEXICON.numbers if is_held_out("recall", key, n) == wanted)
        for key in keys
        for wanted in (False, True)
    }
    return recall.Lexicon(keys, tuple(sorted(numbers)), ("rain", "snow"), (2, 3), (1, 3))


@pytest.mark.parametrize("split", SPLITS)
def test_recall_is_exact(split: str) -> None:
    lexicon = reduced_store()
    prove(
        lambda chooser: recall.generate(chooser, split, lexicon),
        recall.entropy(split, lexicon),
        at_least=1000,
    )


@pytest.mark.parametrize("split", SPLITS)
def test_tool_calls_are_exact_at_full_size(split: str) -> None:
    """Small enough to enumerate the real grammar."""
    count = sum(len(tool_calls.combinations(split, t)) * len(t.phrasings) for t in TOOLS)
    prove(
        lambda chooser: tool_calls.generate(chooser, split),
        tool_calls.entropy(split),
        at_least=count,
    )


def reduced_story(events: tuple[int, int]) -> stories.Lexicon:
    return stories.Lexicon(
        people=(("Mia", stories.SHE), ("Tom", stories.HE)),
        places=("park", "lake"),
        colours=("red",),
        things=("ball",),
        times=("morning",),
        feelings=("happy", "tired"),
        foods=("soup",),
        events=events,
    )


def test_stories_are_exact_with_every_template() -> None:
    lexicon = reduced_story(events=(0, 1))
    prove(
        lambda chooser: stories.generate(chooser, "training", lexicon),
        stories.entropy("training", lexicon),
        at_least=10_000,
    )


def test_stories_are_exact_with_chains_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("OPENINGS", "FINDINGS", "MEETINGS"):
        monkeypatch.setattr(stories, part, getattr(stories, part)[:1])
    lexicon = reduced_story(events=(0, 2))
    prove(
        lambda chooser: stories.generate(chooser, "training", lexicon),
        stories.entropy("training", lexicon),
        at_least=3_000,
    )


def test_the_proof_notices_an_ambiguous_grammar() -> None:
    """Two choices that read the same: the enumeration must not pass."""
    with pytest.raises(AssertionError, match="two derivations"):
        prove(lambda chooser: ("x" * (chooser.index(2) + chooser.index(2)), ""), 2.0, at_least=1)
