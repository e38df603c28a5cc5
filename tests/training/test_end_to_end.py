"""`slmlab train` from nothing, about two minutes: corpus, tokenizer, rows, an interrupt, the model."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

import slmlab
from slmlab.measure import bits_per_byte
from slmlab.measure.card import held_out_text
from slmlab.models import Decoder
from slmlab.training import load_recipe
from slmlab.training.growth import first_layers
from slmlab.training.initialisation import initial_decoder

RECIPE = """
name = "two-minutes"
seed = 7
hidden_size = 128
intermediate_size = 256
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 64
vocab_size = 2048
sequence_length = 128
warmup_steps = 10
decay_steps = 120
muon_lr = 0.02
embedding_lr = 0.02
norm_lr = 0.01
weight_decay = 0.0
grammar_tokens = 200_000

[[stages]]
steps = 120
layers = 1
rows = { stdlib-docs = 6, grammar = 6 }

[[stages]]
steps = 120
rows = { stdlib-docs = 8, grammar = 4 }
"""
INTERRUPT_AFTER = 60
PATIENCE_SECONDS = 600


def command(recipe: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "slmlab.cli", "train", str(recipe), "--out", str(out)]


def steps_done(out: Path) -> int:
    log = out.with_name(f"{out.name}-work") / "log.tsv"
    return len(log.read_text().splitlines()) if log.is_file() else 0


def interrupted(recipe: Path, out: Path) -> str:
    """Start a run, ask it to end after some steps, and return what it says."""
    with subprocess.Popen(
        command(recipe, out), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while steps_done(out) < INTERRUPT_AFTER and process.poll() is None:
                assert time.monotonic() < deadline, "no step was taken"
                time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            process.kill()
    assert process.returncode == 130, said
    return said


@pytest.mark.skipif(os.name == "nt", reason="Windows ends a process at once on SIGTERM")
def test_from_nothing_with_an_interrupt(tmp_path: Path) -> None:
    file = tmp_path / "two-minutes.toml"
    file.write_text(RECIPE)
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    assert "Every finished step is kept" in interrupted(file, parts)
    done = steps_done(parts)
    assert INTERRUPT_AFTER <= done < load_recipe(file).steps
    assert not parts.exists()
    # The second run takes over the token rows, which is the slow part of a start, and nothing else.
    work = tmp_path / "whole-work"
    work.mkdir()
    for path in tmp_path.joinpath("parts-work").iterdir():
        if path.name not in ("log.tsv", "checkpoint.safetensors"):
            shutil.copy(path, work / path.name)
    for out in (parts, whole):
        subprocess.run(command(file, out), check=True, capture_output=True)
        assert steps_done(out) == load_recipe(file).steps
    one, other = (load_file(out / "model.safetensors") for out in (parts, whole))
    assert one.keys() == other.keys()
    assert all((one[name] == other[name]).all() for name in one)

    lm = slmlab.load(parts)
    text = held_out_text("prose", 20_000)
    untrained: Decoder = first_layers(initial_decoder(load_recipe(file)), 2).eval()
    before, after = (bits_per_byte(model, lm.tokenizer, text) for model in (untrained, lm.model))
    assert after < 0.75 * before, (before, after)
