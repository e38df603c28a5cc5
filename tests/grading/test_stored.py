"""A damaged grade.json or run.json: graded again or refused in one sentence, never a lost row."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from slmlab.grading import driver, regrading
from slmlab.grading.grader import Grader
from slmlab.grading.plan import Plan
from slmlab.grading.store import Store
from slmlab.grading.stored import HASH, grade_of, stored_text
from tests.grading.class_of import FakeSandbox, submission

SOFTMAX = """import torch
from slmlab import exercise
@exercise("start.softmax")
def softmax(logits, temperature):
    return torch.softmax(logits, -1)
"""
PLAN = Plan(("start.softmax",), 3)
CLASS = [submission("ann", [SOFTMAX, "raise ValueError(1)"]), submission("bob", [SOFTMAX])]
ODD = [None, -1, 1e9, "x", [], {"a": 1}, [[1, 2]], True]


@pytest.fixture(scope="module")
def grades():
    grader = Grader(PLAN, FakeSandbox())
    return {item.student: grader.grade(item) for item in CLASS}


@pytest.fixture
def graded(tmp_path, grades):
    """(store, again), where again() resumes the run and gives the table."""
    store = Store(tmp_path / "out")

    def again() -> str:
        pool = lambda plan, waiting: iter([grades[item.student] for item in waiting])  # noqa: E731
        driver.grade(CLASS, store, PLAN, pool, source=Path("in"), resume=True)
        return (store.folder / "grades.csv").read_text(encoding="utf-8")

    again()
    return store, again


def _places(tree, path=()):
    yield path
    if isinstance(tree, (dict, list)):
        children = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for name, child in children:
            yield from _places(child, (*path, name))


def _put(tree, path, value):
    if not path:
        return value
    changed = copy.deepcopy(tree)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return changed


def test_a_grade_comes_back_and_any_change_is_noticed(grades):
    text = stored_text(grades["ann"])
    assert grade_of(text) == grades["ann"]
    tree = json.loads(text)
    for path in _places(tree):
        for value in ODD:
            changed = _put(tree, path, value)
            if changed != tree or json.dumps(changed) != json.dumps(tree):
                with pytest.raises(ValueError):
                    grade_of(json.dumps(changed))
    for end in range(0, len(text) - 2, 97):
        with pytest.raises(ValueError):
            grade_of(text[:end])


def test_a_grade_with_a_right_hash_must_still_hold(grades):
    for path, value in {
        ("total",): 1.5,
        ("exercises", 0, "points"): 1000,
        ("audit", "cells", 0, "status"): 3,
        ("audit", "details"): [1],
    }.items():
        tree = json.loads(stored_text(grades["ann"]))
        tree.pop(HASH)
        from slmlab.grading.stored import _hash

        changed = _put(tree, path, value)
        with pytest.raises(ValueError):
            grade_of(json.dumps(changed | {HASH: _hash(changed)}))


def test_a_damaged_grade_is_made_again_and_no_table_loses_its_row(graded):
    store, again = graded
    path = store.place("ann") / "grade.json"
    table, good = again(), path.read_text()
    path.write_text(good.replace('"total": 0', '"total": 2', 1) if '"total": 0' in good else "{}")
    with pytest.raises(ValueError, match="--resume"):
        regrading.rebuild(store)
    assert (store.folder / "grades.csv").read_text() == table
    assert again() == table and path.read_text() == good


def test_a_grade_of_an_exercise_that_was_changed_is_not_taken(graded, grades):
    store, _ = graded
    assert store.grade("ann", PLAN) == grades["ann"]
    other = Plan(("start.softmax", "kv.bytes"), 3)
    assert store.grade("ann", other) is None


@pytest.mark.parametrize(
    "change",
    [
        {"students": "ann"},
        {"students": [1]},
        {"students": ["ann", "ann"]},
        {"submissions": 3},
        {"plan": {"exercises": "start.softmax"}},
        {"plan": {"exercises": [1]}},
        {"plan": {"unsafe": 1}},
    ],
)
def test_a_damaged_run_is_one_sentence(graded, change):
    store, _ = graded
    content = json.loads((store.folder / "run.json").read_text())
    plan = content["plan"] | change.get("plan", {})
    store.write_run(content | change | {"plan": plan})
    with pytest.raises(ValueError, match=r"run\.json cannot be read"):
        regrading.rebuild(store)
