"""Topics are found by entry point, one at a time, and a wrong id names close ones."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from slmlab.checking import exercise, registered, registry
from tests.checking.fake_topic import BYTES, EXERCISES, INT8


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[EntryPoint]:
    """Entry points of this test alone."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    monkeypatch.setattr(registry, "_loaded", {})
    monkeypatch.syspath_prepend(str(tmp_path))
    return points


def offer(points: list[EntryPoint], topic: str, value: str) -> None:
    points.append(EntryPoint(topic, value, registry.GROUP))


def test_only_the_topic_that_is_asked_for_is_imported(
    installed: list[EntryPoint], tmp_path: Path
) -> None:
    body = (
        "from dataclasses import replace\nfrom tests.checking.fake_topic import EXERCISES as E\n"
        "EXERCISES = (replace(E[0], id='{0}.one'),)\n"
    )
    for topic in ("checkone", "checktwo"):
        (tmp_path / f"pack_{topic}.py").write_text(body.format(topic))
        offer(installed, topic, f"pack_{topic}:EXERCISES")
    assert registry.topics() == ("checkone", "checktwo", "fake")
    assert "pack_checkone" not in sys.modules
    assert registry.get("checkone.one").id == "checkone.one"
    assert "pack_checkone" in sys.modules and "pack_checktwo" not in sys.modules
    assert len(registry.all_exercises()) == 4


def test_a_topic_that_cannot_be_imported_is_one_sentence(installed: list[EntryPoint]) -> None:
    offer(installed, "gone", "slmlab_no_such_pack:EXERCISES")
    with pytest.raises(ValueError, match=r"'gone'.*could not be loaded.*slmlab_no_such_pack"):
        registry.get("gone.one")


def test_a_topic_offered_by_two_packages_is_refused(installed: list[EntryPoint]) -> None:
    offer(installed, "twice", "one:EXERCISES")
    offer(installed, "twice", "two:EXERCISES")
    with pytest.raises(ValueError, match="offered twice"):
        registry.exercises("twice")


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("fake.absmax_int", INT8), ("fake.cache_byte", BYTES), ("fale.cache_bytes", "fake")],
)
def test_unknown_ids_name_close_ones(wrong: str, near: str, installed: list[EntryPoint]) -> None:
    with pytest.raises(ValueError, match=f"Did you mean .*{near!r}"):
        registry.get(wrong)


def test_unknown_topics_and_wrong_types(installed: list[EntryPoint]) -> None:
    with pytest.raises(ValueError, match="no topic 'quant'"):
        registry.exercises("quant")
    with pytest.raises(ValueError, match=r"topic\.name"):
        registry.get("absmax")
    with pytest.raises(TypeError, match="not int"):
        registry.get(3)  # type: ignore[arg-type]


def test_a_topic_alone_lists_its_exercises(installed: list[EntryPoint]) -> None:
    for call in (registry.get, exercise):
        with pytest.raises(ValueError, match=f"'fake' is a topic.*{INT8}, {BYTES}"):
            call("fake")
    with registered("none", ()), pytest.raises(ValueError, match="no exercises"):
        registry.get("none")


def test_registered_comes_and_goes() -> None:
    with registered("other", ()):
        assert "other" in registry.topics()
        assert registry.exercises("other") == ()
    assert "other" not in registry.topics()
    with registered("fake", EXERCISES[:1]):
        assert len(registry.exercises("fake")) == 1
    assert len(registry.exercises("fake")) == 2


def test_ids_must_be_unique_and_belong_to_their_topic() -> None:
    with pytest.raises(ValueError, match=r"must begin with 'other\.'"):
        registry.register("other", EXERCISES)
    with pytest.raises(ValueError, match="used twice"):
        registry.register("fake", (*EXERCISES, EXERCISES[0]))
