from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from slmlab.data import calibration_text, entropy_bits, evaluation_set, read_corpus
from slmlab.data.corpus import STANDARD_LIBRARY
from slmlab.data.evaluation import EVALUATION_SETS, SAMPLES
from slmlab.data.grammar import TASKS
from slmlab.data.special_tokens import END

# The same on every machine and Python: numbers measured on these sets may be quoted.
PINNED = {
    ("tool_calls", "evaluation"): (
        "066f151ddb6dd23505dfdc7ce922a7cd6a42a6e02f302d349d1b678c5f42d268"
    ),
    ("tool_calls", "training"): (
        "380c87e6333a950dc6ad620fb27aec40bb0a6e6831ab62b726508e6415edf5a3"
    ),
    ("recall", "evaluation"): ("62ae07eed58612c2ddd96535c8b0c95eb63c2df39225f3f95bcbcf8731a9c11f"),
    ("recall", "training"): ("3a8c73562c1de110fa2d25b910a56ac8c55bca3cd58edf33a92a003fb83e5722"),
    ("sums", "evaluation"): ("1c44bde3755d163521cb831c307b22642868f11f250d828035e3c84a0ec79a61"),
    ("sums", "training"): ("b91655b99f366e79814673c0543d86e43f406193c3eb74806a1b8e954465af5d"),
    ("stories", "evaluation"): ("e979dd934861d531d9b38cef19a29ef734952501771506fc7578f9943d756855"),
    ("stories", "training"): ("c97c7e0e91ab7a409ab54f3e90465f7bc5aaf4c62e3782b8946a4cde9ba93620"),
    ("prose", "evaluation"): ("eac19293932ad18734d511aa6c9817abe585d0bc75b9e1c19904a4fa83fd03be"),
}


@pytest.mark.parametrize(("name", "split"), PINNED)
def test_the_bytes_are_pinned(name: str, split: str) -> None:
    assert evaluation_set(name, split).sha256 == PINNED[name, split]


def test_the_prose_is_long_enough_and_has_unix_line_ends() -> None:
    (text,) = evaluation_set("prose").texts
    assert 7_000 < len(text) < 10_000
    assert "\r" not in text and text.isascii()


@pytest.mark.parametrize("task", TASKS)
def test_grammar_sets_are_distinct_samples(task: str) -> None:
    chosen = evaluation_set(task)
    assert len(set(chosen.texts)) == len(chosen.samples) == SAMPLES
    assert chosen.texts == tuple(sample.prompt + sample.answer for sample in chosen.samples)
    assert chosen.size_bytes == sum(map(len, chosen.texts))
    assert chosen.entropy_bits is None


@pytest.mark.parametrize("task", TASKS)
def test_only_training_draws_have_a_floor(task: str) -> None:
    drawn = evaluation_set(task, "training")
    assert drawn.entropy_bits == entropy_bits(task)
    assert not set(drawn.texts) & set(evaluation_set(task).texts)


def test_corpus_sets_are_the_held_out_files() -> None:
    held_out = read_corpus("evaluation", (STANDARD_LIBRARY,))
    assert evaluation_set("stdlib-docs").texts == tuple(held_out.texts("docs"))
    assert evaluation_set("stdlib-code").texts == tuple(held_out.texts("code"))


def test_the_sets_with_packages_contain_those_without() -> None:
    assert set(EVALUATION_SETS) - set(TASKS) - {"prose"} == {
        *("stdlib-docs", "stdlib-code"),
        *("docs", "code"),
    }
    for domain in ("docs", "code"):
        assert set(evaluation_set(f"stdlib-{domain}").texts) < set(evaluation_set(domain).texts)


@pytest.fixture(scope="module")
def calibration() -> str:
    return calibration_text(0)


def test_calibration_text_has_the_size_and_mix_that_were_asked_for(calibration: str) -> None:
    assert 65_536 <= len(calibration.encode()) < 1.3 * 65_536
    assert calibration.endswith(END)
    assert "store:\n" in calibration and "<|assistant|>" in calibration and "import " in calibration


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_calibration_never_overlaps_with_evaluation(seed: int) -> None:
    parts = calibration_text(seed, 262_144, origins=()).split(END)
    for task in TASKS:
        for split in ("training", "evaluation"):
            assert not set(parts) & set(evaluation_set(task, split).texts)


def test_calibration_uses_no_held_out_file_and_no_prose(calibration: str) -> None:
    for name in ("prose", "stdlib-docs", "stdlib-code"):
        for text in evaluation_set(name).texts:
            for paragraph in text.split("\n\n"):
                if len(paragraph) > 200:
                    assert paragraph not in calibration


def test_calibration_text_is_seeded(calibration: str) -> None:
    assert calibration_text(5, 4096, origins=()) == calibration_text(5, 4096, origins=())
    assert calibration_text(5, 4096, origins=()) != calibration_text(6, 4096, origins=())


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="name is 'wikitext'"):
        evaluation_set("wikitext")
    with pytest.raises(ValueError, match="split is 'test'"):
        evaluation_set("sums", "test")
    with pytest.raises(ValueError, match="prose has 'evaluation'"):
        evaluation_set("prose", "training")
    with pytest.raises(ValueError, match="size_bytes is 10"):
        calibration_text(0, 10)


def test_importing_the_room_loads_neither_torch_nor_transformers() -> None:
    program = (
        "import sys, slmlab.data\n"
        "print([name for name in ('torch', 'transformers', 'tokenizers', 'numpy')"
        " if name in sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.strip() == "[]"
