"""Notebooks that something else has damaged: sentences, never a traceback."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from authoring.build import build, check
from authoring.failure import BuildError
from tests.authoring.tree import TOPIC, make_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = make_tree(tmp_path)
    build(root)
    return root


def edited(change: Callable[[dict], object]) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        content = json.loads(data)
        change(content)
        return json.dumps(content).encode()

    return damage


DAMAGE = {
    "a list": lambda data: b"[]",
    "null": lambda data: b"null",
    "cells are a number": lambda data: b'{"cells": 3}',
    "not UTF-8": lambda data: b"\xff" + data,
    "empty": lambda data: b"",
    "deep": lambda data: b"[" * 100_000,
    "a format of the future": edited(lambda content: content.update(nbformat=9)),
    "a foreign mark": edited(lambda content: content["metadata"].update(slmlab="x")),
    "a cell is a word": edited(lambda content: content["cells"].append("x")),
    "outputs are a word": edited(lambda content: content["cells"][1].update(outputs="x")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("folder", ["notebooks", "exercises"])
def test_a_damaged_notebook_is_reported_and_built_again(
    tree: Path, folder: str, damage: Callable[[bytes], bytes]
) -> None:
    path = tree / folder / f"{TOPIC}.ipynb"
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert any(sentence.startswith(f"{folder}/{TOPIC}.ipynb is ") for sentence in check(tree))
    build(tree)
    assert path.read_bytes() == whole


def test_a_folder_in_the_place_of_a_notebook_is_named(tree: Path) -> None:
    path = tree / "exercises" / f"{TOPIC}.ipynb"
    path.unlink()
    path.mkdir()
    sentence = f"exercises/{TOPIC}.ipynb is a folder where a notebook goes: move it away."
    assert sentence in check(tree)
    with pytest.raises(BuildError) as error:
        build(tree)
    assert str(error.value) == sentence
