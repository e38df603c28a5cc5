"""`slmlab train` and `slmlab evaluate` from end to end, on a recipe of seconds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from slmlab.cli.main import app
from slmlab.models.loading import EMBEDDED
from slmlab.training import Recipe, pretrain

RECIPE = """
name = "mini"
seed = 1
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 16
vocab_size = 2048
sequence_length = 512
warmup_steps = 1
decay_steps = 1
muon_lr = 0.02
embedding_lr = 0.02
norm_lr = 0.01
weight_decay = 0.0
grammar_tokens = 2000
[[stages]]
steps = 2
rows = { docs = 1 }
"""


@pytest.mark.skipif(not (EMBEDDED / "tiny").is_dir(), reason="no embedded model in this checkout")
def test_train_then_evaluate_then_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(EMBEDDED / "tiny")
    rows = np.random.default_rng(0).integers(4, 2048, (4, 513)).astype(np.uint16)
    # The corpus takes half a minute to read; its reader has tests of its own.
    monkeypatch.setattr(pretrain, "prepare_tokenizer", lambda recipe, folder: tokenizer)
    monkeypatch.setattr(pretrain, "prepare_rows", lambda recipe, tok, folder: {"docs": rows})
    recipe = tmp_path / "mini.toml"
    recipe.write_text(RECIPE)
    out = tmp_path / "model"
    done = CliRunner().invoke(app, ["train", str(recipe), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert json.loads((out / "training.json").read_text())["tokens_seen"] == 1024

    from slmlab.measure import card

    monkeypatch.setattr(card, "ANSWERED_TASKS", ("sums",))
    monkeypatch.setattr(card, "TEXTS", ("prose",))
    monkeypatch.setattr(card, "TEXT_CHARACTERS", 2000)
    done = CliRunner().invoke(app, ["evaluate", str(out), "--card"])
    assert done.exit_code == 0, done.output
    text = (out / "README.md").read_text()
    assert "| sums, exact match | 0.0%" in text and "1,024 of docs" in text


def test_bad_arguments_end_in_one_sentence(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["train", "huge"])
    assert done.exit_code == 1 and "no recipe 'huge'" in done.output
    assert "Traceback" not in done.output
    done = CliRunner().invoke(app, ["evaluate", str(tmp_path / "none")])
    assert done.exit_code == 1 and "Traceback" not in done.output


def test_an_interrupt_has_its_own_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("slmlab.training.train", interrupted)
    done = CliRunner().invoke(app, ["train", "tiny", "--out", str(tmp_path / "model")])
    assert done.exit_code == 130 and "Every finished step is kept" in done.output


def test_training_refuses_threads_and_places_before_it_starts(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["train", "tiny", "--threads", "0"])
    assert done.exit_code == 2
    done = CliRunner().invoke(app, ["train", "tiny", "--threads", "100000"])
    assert done.exit_code == 1 and "threads must lie between 1 and" in done.output
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(app, ["train", "tiny", "--out", str(tmp_path / "file")])
    assert done.exit_code == 1 and "is a file; name another" in done.output


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff", b'{"recipe": {}}', b'{"recipe": 3}', b"[" * 100_000]
)
def test_a_damaged_training_record_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "training.json").write_bytes(content)
    for words in ([], ["--card"]):
        done = CliRunner().invoke(app, ["evaluate", str(tmp_path), *words])
        assert done.exit_code == 1 and "training.json is damaged" in done.output
        assert done.output.count("\n") == 1


def test_without_a_recipe_the_pair_and_its_cards_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str, str | None]] = []

    def train(recipe: Recipe, out: Path, *, teacher: Path | None, **_: object) -> None:
        calls.append(("train", out.name, teacher.name if teacher else None))

    def evaluation(model: str, card: bool, teacher: Path | None) -> None:
        assert card
        calls.append(("card", Path(model).name, teacher.name if teacher else None))

    monkeypatch.setattr("slmlab.training.train", train)
    monkeypatch.setattr("slmlab.cli.training.run_evaluation", evaluation)
    done = CliRunner().invoke(app, ["train", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert calls == [
        ("train", "tiny", None),
        ("train", "tiny-draft", "tiny"),
        ("card", "tiny", None),
        ("card", "tiny-draft", "tiny"),
    ]
    done = CliRunner().invoke(app, ["train", "--work", str(tmp_path)])
    assert done.exit_code == 1 and "belong to one recipe" in done.output
