"""What a run refuses before it costs anything, and what an interrupt leaves whole."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from slmlab.models.loading import EMBEDDED, EMBEDDED_NAMES
from slmlab.training import pretrain
from slmlab.training.batches import Batches, Rows, load_rows
from slmlab.training.interrupt import STOPS, interrupts_deferred, termination_interrupts
from slmlab.training.optimizer import PairedOptimizer
from slmlab.training.pretrain import train
from slmlab.training.provenance import read_provenance
from slmlab.training.recipe import Recipe, load_recipe
from slmlab.training.work_folder import claim_work_folder
from tests.training.test_training import SMALL, SOURCES, one_stage


@pytest.fixture(autouse=True)
def _ctrl_c_interrupts() -> Iterator[None]:
    """As in a terminal: a shell lets what it starts in the background ignore SIGINT."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


CHANGES: list[dict[str, object]] = [
    {"seed": 4},
    {"sequence_length": 12},
    {"vocab_size": 41},
    {"grammar_tokens": 999},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_rows_of_another_recipe_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, object]
) -> None:
    made = []
    monkeypatch.setattr(pretrain, "prepare_tokenizer", lambda recipe, folder: None)

    def prepare_rows(recipe: Recipe, tokenizer: object, folder: Path) -> dict[str, Rows]:
        made.append(recipe)
        return dict(SOURCES)

    monkeypatch.setattr(pretrain, "prepare_rows", prepare_rows)
    work = tmp_path / "run-work"
    train(SMALL, tmp_path / "run", stop_after=1)
    (work / "checkpoint.safetensors").unlink()
    # what shapes the steps but not the rows may change
    train(dataclasses.replace(SMALL, muon_lr=0.01), tmp_path / "run", stop_after=1)
    other = dataclasses.replace(SMALL, **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"another recipe .{next(iter(change))} .*delete the fold"):
        train(other, tmp_path / "run")
    assert len(made) == 2


def test_a_teacher_that_was_trained_again_is_another_teacher(tmp_path: Path) -> None:
    teacher, work = tmp_path / "teacher", tmp_path / "work"
    teacher.mkdir()
    work.mkdir()
    (teacher / "model.safetensors").write_bytes(b"one")
    rows = {"docs": 1, "sampled": 1}
    draft = dataclasses.replace(
        SMALL, teacher=str(teacher), sampled_tokens=9, stages=one_stage(rows=rows)
    )
    claim_work_folder(draft, work, teacher)
    claim_work_folder(draft, work, teacher)
    with pytest.raises(ValueError, match="sampled_from differs"):
        claim_work_folder(
            dataclasses.replace(draft, stages=one_stage(rows={**rows, "code": 1})), work, teacher
        )
    with pytest.raises(ValueError, match="sampled_tokens differs"):
        claim_work_folder(dataclasses.replace(draft, sampled_tokens=8), work, teacher)
    (teacher / "model.safetensors").write_bytes(b"two")
    with pytest.raises(ValueError, match="teacher_sha256 differs"):
        claim_work_folder(draft, work, teacher)


def test_rows_without_a_record_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "docs.npy", SOURCES["docs"])
    with pytest.raises(ValueError, match="unknown recipe"):
        claim_work_folder(SMALL, tmp_path)
    assert not (tmp_path / "prepared.json").exists()
    for damaged in (b"{", b"[]", b"\xff"):
        (tmp_path / "prepared.json").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"prepared\.json is damaged"):
            claim_work_folder(SMALL, tmp_path)


def test_rows_must_fit_the_recipe(tmp_path: Path) -> None:
    for bad in (SOURCES["docs"][:, :-1], SOURCES["docs"][:0], SOURCES["docs"][0]):
        with pytest.raises(ValueError, match=r"rows of source 'docs' must have the shape .*25"):
            Batches(SMALL, {**SOURCES, "docs": bad})
    path = tmp_path / "docs.npy"
    for content in (b"", b"\x93NUMPY\x01\x00", b"no array"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"docs\.npy cannot be read"):
            load_rows(path)
    np.save(path, np.zeros((2, 25)))
    with pytest.raises(ValueError, match=r"docs\.npy holds no token rows"):
        load_rows(path)


def test_a_recipe_shortened_below_its_checkpoint_is_refused(tmp_path: Path) -> None:
    train(SMALL, tmp_path / "run", sources=SOURCES, stop_after=6)
    checkpoint = tmp_path / "run-work" / "checkpoint.safetensors"
    before = checkpoint.read_bytes()
    short = dataclasses.replace(SMALL, stages=one_stage(5), decay_steps=3)
    with pytest.raises(ValueError, match="holds 6 finished steps, the recipe asks for 5"):
        train(short, tmp_path / "run", sources=SOURCES)
    assert checkpoint.read_bytes() == before and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("stop", "steps", "decay_steps", "goes_on"),
    [(6, 20, 6, True), (7, 20, 6, True), (8, 20, 6, False), (6, 12, 8, False), (8, 12, 5, False)],
)
def test_the_plateau_may_change_and_a_decay_that_began_may_not(
    tmp_path: Path, stop: int, steps: int, decay_steps: int, goes_on: bool
) -> None:
    train(SMALL, tmp_path / "run", sources=SOURCES, stop_after=stop)
    changed = dataclasses.replace(SMALL, stages=one_stage(steps), decay_steps=decay_steps)
    if not goes_on:
        with pytest.raises(ValueError, match="another learning rate"):
            train(changed, tmp_path / "run", sources=SOURCES)
        return
    train(changed, tmp_path / "run", sources=SOURCES)
    train(changed, tmp_path / "whole", sources=SOURCES)
    run, whole = (load_file(tmp_path / n / "model.safetensors") for n in ("run", "whole"))
    assert all(torch.equal(run[name], whole[name]) for name in whole)


@pytest.mark.parametrize("threads", [0, -1, 100_000, (os.cpu_count() or 1) + 1])
def test_threads_beyond_the_machine_are_refused(tmp_path: Path, threads: int) -> None:
    with pytest.raises(ValueError, match="threads must lie between 1 and"):
        train(SMALL, tmp_path / "run", sources=SOURCES, threads=threads)
    assert not list(tmp_path.glob("run*"))


@pytest.mark.parametrize("threads", ["1", 1.0, True])
def test_threads_of_another_type_are_refused(tmp_path: Path, threads: object) -> None:
    with pytest.raises(TypeError, match="threads must be an int"):
        train(SMALL, tmp_path / "run", sources=SOURCES, threads=threads)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["out", "work"])
@pytest.mark.parametrize("inside", ["", "deeper/still"])
def test_a_file_where_a_folder_goes_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, inside: str
) -> None:
    monkeypatch.setattr(pretrain, "batch_loss", lambda *_: pytest.fail("a step was taken"))
    (tmp_path / "file").write_text("mine")
    places = {"out": tmp_path / "out", "work": tmp_path / "work", name: tmp_path / "file" / inside}
    with pytest.raises(ValueError, match=rf"{name} .*file is a file; name another"):
        train(SMALL, places["out"], work=places["work"], sources=SOURCES)
    assert (tmp_path / "file").read_text() == "mine"


def test_the_current_folder_may_receive_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    train(SMALL, ".", sources=SOURCES, stop_after=1)
    assert (tmp_path / "here-work" / "checkpoint.safetensors").is_file()


def test_ctrl_c_inside_the_optimizer_saves_no_half_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, steps = PairedOptimizer.step, []

    def interrupted(self: PairedOptimizer, rate: float) -> None:
        steps.append(rate)
        if len(steps) == 4:
            self.muon.step = _then(signal.SIGINT, self.muon.step)  # type: ignore[method-assign]
        real(self, rate)

    monkeypatch.setattr(PairedOptimizer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(SMALL, tmp_path / "run", sources=SOURCES)
    monkeypatch.undo()
    assert len((tmp_path / "run-work" / "log.tsv").read_text().splitlines()) == 4
    train(SMALL, tmp_path / "run", sources=SOURCES)
    train(SMALL, tmp_path / "whole", sources=SOURCES)
    assert len((tmp_path / "run-work" / "log.tsv").read_text().splitlines()) == SMALL.steps
    run, whole = (load_file(tmp_path / n / "model.safetensors") for n in ("run", "whole"))
    assert all(torch.equal(run[name], whole[name]) for name in whole)


def _then(number: int, step):  # type: ignore[no-untyped-def]
    def wrapped() -> None:
        step()
        signal.raise_signal(number)

    return wrapped


def test_an_optimizer_that_fails_half_way_leaves_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(SMALL, tmp_path / "run", sources=SOURCES, stop_after=3)
    checkpoint = tmp_path / "run-work" / "checkpoint.safetensors"
    before = checkpoint.read_bytes()

    def broken(self: PairedOptimizer, rate: float) -> None:
        self.muon.step()
        raise MemoryError

    monkeypatch.setattr(PairedOptimizer, "step", broken)
    with pytest.raises(MemoryError):
        train(SMALL, tmp_path / "run", sources=SOURCES)
    assert checkpoint.read_bytes() == before


@pytest.mark.parametrize("stop", STOPS)
def test_interrupts_wait_for_the_end_of_the_block(stop: signal.Signals) -> None:
    before, done = [signal.getsignal(s) for s in STOPS], []
    with pytest.raises(KeyboardInterrupt), termination_interrupts(), interrupts_deferred():
        signal.raise_signal(stop)
        done.append("first")
        signal.raise_signal(stop)
        done.append("second")
    assert done == ["first", "second"]
    assert [signal.getsignal(s) for s in STOPS] == before


def test_an_ignored_interrupt_stays_ignored() -> None:
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_deferred():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, previous)


def test_training_in_another_thread_touches_no_signal(tmp_path: Path) -> None:
    before, errors = signal.getsignal(signal.SIGINT), []

    def run() -> None:
        try:
            train(SMALL, tmp_path / "run", sources=SOURCES, stop_after=1)
        except BaseException as error:
            errors.append(error)

    worker = threading.Thread(target=run)
    worker.start()
    worker.join()
    assert not errors and signal.getsignal(signal.SIGINT) is before


def in_stage(**fields: object) -> dict[str, object]:
    """The change to SMALL that gives its only stage these fields."""
    return {"stages": [{"steps": 12, "rows": {"docs": 1}, **fields}]}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (in_stage(rows=["docs"]), TypeError, "rows must be a table of counts"),
        (in_stage(rows={"docs": 1.5}), TypeError, r"rows\.docs must be int, got 1\.5"),
        (in_stage(rows={"docs": True}), TypeError, r"rows\.docs must be int"),
        (in_stage(steps="12"), TypeError, "steps must be int, got '12'"),
        (in_stage(steps=True), TypeError, "steps must be int"),
        (in_stage(layers=1.0), TypeError, "layers must be int"),
        ({"stages": []}, TypeError, "stages must be a list of at least one table"),
        ({"stages": {"steps": 1}}, TypeError, "stages must be a list of at least one table"),
        ({"stages": [3]}, TypeError, "stages must hold tables, got 3"),
        ({"muon_lr": "fast"}, TypeError, "muon_lr must be float"),
        ({"teacher": 3}, TypeError, r"teacher must be str \| None"),
        ({"muon_lr": float("nan")}, ValueError, "muon_lr must be a finite"),
        ({"norm_lr": -1.0}, ValueError, "norm_lr must be a finite"),
        ({"seed": -1}, ValueError, "seed must lie in"),
        ({"vocab_size": 70_000}, ValueError, "vocab_size must be at most 65536"),
        ({"hidden_size": 0}, ValueError, r"hidden_size.* must be at least 1"),
        ({"num_key_value_heads": 3}, ValueError, "num_key_value_heads"),
    ],
)
def test_fields_are_checked(
    change: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        dataclasses.replace(SMALL, **change)  # type: ignore[arg-type]


def test_recipe_files_that_are_damaged_name_themselves(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_bytes('name = "größer"'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"mine\.toml is not UTF-8 text"):
        load_recipe(file)
    file.write_text("x = " + "[" * 100_000)
    with pytest.raises(ValueError, match=r"mine\.toml is not valid TOML"):
        load_recipe(file)
    shipped = (Path(pretrain.__file__).parent / "recipes" / "tiny.toml").read_text()
    file.write_text(re.sub(r" docs = \d+", " docs = 1.5", shipped))
    with pytest.raises(ValueError, match=r"mine\.toml: stages\.rows\.docs must be int"):
        load_recipe(file)
    file.write_text(re.sub(r"\nsteps = .*", "\nsteps = 0", shipped))
    with pytest.raises(ValueError, match=r"mine\.toml: stages\.steps must be at least 1"):
        load_recipe(file)


@pytest.mark.parametrize("name", EMBEDDED_NAMES)
def test_the_embedded_models_were_made_by_the_shipped_recipes(name: str) -> None:
    facts, recipe = read_provenance(EMBEDDED / name), load_recipe(name)
    assert Recipe(**facts["recipe"]) == recipe
    assert facts["recipe_digest"] == recipe.digest()


def test_a_training_record_that_was_written_can_be_read(tmp_path: Path) -> None:
    out = train(SMALL, tmp_path / "run", sources=SOURCES)
    assert Recipe(**read_provenance(out)["recipe"]) == SMALL
