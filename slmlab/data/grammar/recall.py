"""Key-value recall: some pairs, then several queries about them.

    store:
    red 42
    fox 17
    oak rain
    ask:
    fox 17
    oak rain
    red 42

A query reads as the pair did, so that a key and a value are the same tokens in both places.

Held out: for every key a hashed 5% of its values. Training never shows such a pair; in the
evaluation split the last query asks for one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

from slmlab.data.grammar.chooser import EVALUATION, TRAINING, Chooser, is_held_out
from slmlab.data.grammar.words import words


@dataclass(frozen=True)
class Lexicon:
    """Keys and values of a store, and how many pairs and queries it may have (ends included)."""

    keys: tuple[str, ...]
    numbers: tuple[str, ...]
    words: tuple[str, ...]
    pairs: tuple[int, int] = (3, 6)
    queries: tuple[int, int] = (4, 10)


LEXICON = Lexicon(
    keys=words(
        "red blue green gold fox cat dog owl bee oak elm fir sun moon star sea lake hill rock sand "
        "cup pan key box bag hat coat shoe ring bell drum horn door wall roof lamp desk book pen "
        "map car bus ship road gate farm barn nest seed leaf"
    ),
    numbers=tuple(str(number) for number in range(10, 100)),
    words=words(
        "rain snow wind salt corn rice milk bread soup cake plum pear lime mint rose silk wool "
        "iron clay wood glass paper stone water fire light north south east west spring summer"
    ),
)


@cache
def values(split: str, key: str, lexicon: Lexicon = LEXICON) -> tuple[tuple[str, ...], ...]:
    """What `key` may hold in `split`: its numbers and its words, a kind without any left out."""
    wanted = split == EVALUATION
    kinds = (
        tuple(value for value in kind if is_held_out("recall", key, value) == wanted)
        for kind in (lexicon.numbers, lexicon.words)
    )
    return tuple(kind for kind in kinds if kind)


def generate(
    chooser: Chooser, split: str = TRAINING, lexicon: Lexicon = LEXICON
) -> tuple[str, str]:
    """(prompt, answer) of one document.

    No key is asked for twice in a row. One derivation a text: the keys, the values (no word is a
    number), the number of queries and their order can all be read off it. The queries are drawn
    from the last to the first, because the last one decides which value is the held-out one.
    """
    chosen = chooser.pick_distinct(lexicon.keys, chooser.between(*lexicon.pairs))
    queries: list[int] = [chooser.index(len(chosen))]
    for _ in range(chooser.between(*lexicon.queries) - 1):
        others = [index for index in range(len(chosen)) if index != queries[-1]]
        queries.append(chooser.pick(others))
    stored = []
    for index, key in enumerate(chosen):
        source = split if index == queries[0] else TRAINING
        stored.append(chooser.pick(chooser.pick(values(source, key, lexicon))))
    lines = [f"{key} {value}\n" for key, value in zip(chosen, stored, strict=True)]
    asked = "".join(lines[index] for index in reversed(queries[1:]))
    return f"store:\n{''.join(lines)}ask:\n{asked}{chosen[queries[0]]}", f" {stored[queries[0]]}"


def _value_bits(split: str, lexicon: Lexicon) -> float:
    """Mean bits of one value, over all keys."""
    total = 0.0
    for key in lexicon.keys:
        sizes = [len(kind) for kind in values(split, key, lexicon)]
        total += math.log2(len(sizes)) + sum(map(math.log2, sizes)) / len(sizes)
    return total / len(lexicon.keys)


def entropy(split: str = TRAINING, lexicon: Lexicon = LEXICON) -> float:
    """Mean bits of a document. Every key is equally likely at every place, so means suffice."""
    lengths = range(lexicon.pairs[0], lexicon.pairs[1] + 1)
    fewest, most = lexicon.queries
    total = 0.0
    for count in lengths:
        total += sum(math.log2(len(lexicon.keys) - taken) for taken in range(count))
        total += math.log2(count) + ((fewest + most) / 2 - 1) * math.log2(count - 1)
        total += (count - 1) * _value_bits(TRAINING, lexicon) + _value_bits(split, lexicon)
    return math.log2(len(lengths)) + math.log2(most - fewest + 1) + total / len(lengths)
