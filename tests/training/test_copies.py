"""Rows of repeated passages, and rows cut into pieces."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from slmlab.data.corpus import Corpus, Document
from slmlab.data.tokenizer import train_tokenizer
from slmlab.training import prepare
from slmlab.training.batches import Batches, load_rows
from slmlab.training.copies import SHORTEST_PASSAGE, copied_rows
from slmlab.training.stage import Stage
from tests.training.test_training import SMALL, SOURCES


def period(row: np.ndarray) -> int:
    """The shortest distance at which the row repeats itself."""
    return next(n for n in range(1, len(row)) if np.array_equal(row[n:], row[:-n]))


def test_a_row_is_one_passage_of_a_source_repeated() -> None:
    # Every token of a source occurs once in its row, so a period is the length of the passage.
    docs = np.arange(3 * 129, dtype=np.uint16).reshape(3, 129)
    code = docs + 1000
    made = copied_rows({"docs": docs, "code": code}, 40, seed=5)
    assert made.shape == (40, 129) and made.dtype == np.uint16
    lengths = [period(row) for row in made]
    assert SHORTEST_PASSAGE <= min(lengths) < max(lengths) <= 129 // 4
    for row, length in zip(made, lengths, strict=True):
        assert np.array_equal(np.diff(row[:length]), np.ones(length - 1))
    assert 0.4 < np.mean(made[:, 0] >= 1000) < 0.6
    assert np.array_equal(made, copied_rows({"docs": docs, "code": code}, 40, seed=5))
    assert not np.array_equal(made, copied_rows({"docs": docs, "code": code}, 40, seed=6))


def test_copies_are_made_of_the_text_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"docs": "alpha beta gamma delta " * 40, "code": "x = y + z\n" * 80}
    corpus = Corpus(tuple(Document(domain, domain, text) for domain, text in texts.items()))  # type: ignore[arg-type]
    monkeypatch.setattr(prepare, "_training_corpus", lambda: corpus)
    monkeypatch.setattr(prepare, "COPIED_ROWS", 12)
    recipe = dataclasses.replace(
        SMALL, vocab_size=300, stages=(Stage(steps=12, rows={"copies": 2, "docs": 1}),)
    )
    tokenizer = train_tokenizer(list(texts.values()), 300)
    rows = prepare.prepare_rows(recipe, tokenizer, tmp_path)
    assert set(rows) == {"docs", "copies"}
    assert rows["copies"].shape == (12, recipe.sequence_length + 1)
    text = {name: [t for row in load_rows(tmp_path / f"{name}.npy") for t in row] for name in texts}
    for index, row in enumerate(rows["copies"]):
        passage = list(row[: period(row)])
        source = text[("code", "docs")[index % 2]]
        assert any(source[i : i + len(passage)] == passage for i in range(len(source)))


def test_pieces_are_the_row_cut_without_a_token_lost() -> None:
    whole = dataclasses.replace(SMALL, stages=(Stage(steps=12, rows={"docs": 3, "code": 2}),))
    cut = dataclasses.replace(whole, stages=(dataclasses.replace(whole.stages[0], pieces=3),))
    for step in (0, 7):
        inputs, targets = Batches(whole, SOURCES).at(step)
        short_inputs, short_targets = Batches(cut, SOURCES).at(step)
        assert short_inputs.shape == (15, 8)
        assert torch.equal(short_inputs.reshape(5, 24), inputs)
        assert torch.equal(short_targets.reshape(5, 24), targets)


def test_pieces_must_divide_a_row() -> None:
    with pytest.raises(ValueError, match=r"stages.pieces must divide sequence_length 24, got 5"):
        dataclasses.replace(SMALL, stages=(Stage(steps=12, rows={"docs": 1}, pieces=5),))
    with pytest.raises(ValueError, match=r"stages.pieces must be at least 1, got 0"):
        Stage(steps=1, rows={"docs": 1}, pieces=0)
