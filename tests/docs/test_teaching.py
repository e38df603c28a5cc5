"""The teaching guide says what the specs and the commands say."""

import csv
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from slmlab.checking import registry
from slmlab.cli.main import app
from slmlab.grading.multipliers import read_multipliers
from slmlab.grading.overrides import COLUMNS

ROOT = Path(__file__).resolve().parent.parent.parent
TEXT = (ROOT / "docs" / "teaching.md").read_text(encoding="utf-8")
LESSONS = {
    path.parent.name: int(re.search(r"^# \*(\d+) minutes", path.read_text("utf-8"), re.M)[1])  # type: ignore[index]
    for path in sorted((ROOT / "authoring").glob("[0-9][0-9]_*/lesson.py"))
}
TOPICS = [topic for topic in registry.topics() if topic in registry.LESSON_ORDER]


def tables() -> Iterator[tuple[list[str], list[list[str]]]]:
    """(heads, rows) of every table."""
    for block in re.findall(r"(?:^\|.*\|\n)+", TEXT, re.MULTILINE):
        lines = [
            [cell.strip() for cell in line.strip("|").split(" | ")]
            for line in (line.strip("| ") for line in block.splitlines())
        ]
        yield lines[0], lines[2:]


def blocks(kind: str) -> list[str]:
    """Fenced blocks of one language; "" is none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language == kind]


def minutes_of(text: str) -> int:
    """The minutes of what a row of a plan names: lessons by number, topics and exercises."""
    total = 0
    for number in re.findall(r"lesson (\d\d)", text):
        total += next(minutes for name, minutes in LESSONS.items() if name.startswith(number))
    for word in re.findall(r"`([^`]+)`", text):
        items = registry.exercises(word) if word in TOPICS else (registry.get(word),)
        total += sum(item.minutes for item in items)
    return total


def test_the_table_of_lessons() -> None:
    (rows,) = [rows for heads, rows in tables() if heads[0] == "lesson" and heads[1] == "topic"]
    assert [row[0] for row in rows] == list(LESSONS), "a lesson is missing, or came"
    assert [row[1].strip("`") for row in rows] == TOPICS
    for name, topic, minutes, count, points, practice in rows:
        items = registry.exercises(topic.strip("`"))
        assert int(minutes) == LESSONS[name]
        assert int(count) == len(items)
        assert int(points) == sum(item.points for item in items)
        assert int(practice) == sum(item.minutes for item in items)


def test_the_minutes_of_the_three_courses() -> None:
    plans = {heads[0]: rows for heads, rows in tables() if heads[1:3] == ["what", "min"]}
    assert set(plans) == {"time", "day", "week"}
    for rows in plans.values():
        for _, what, minutes, _ in rows:
            assert int(minutes) == minutes_of(what), what
    for rows in (plans["day"], plans["week"]):
        everything = " ".join(row[1] for row in rows)
        assert all(f"lesson {name[:2]}" in everything for name in LESSONS)
        assert all(f"`{topic}`" in everything for topic in TOPICS)
    starts = [row[0].split(":") for row in plans["time"]] + [["16", "15"]]
    clock = [60 * int(hour) + int(minute) for hour, minute in starts]
    for begin, end, row in zip(clock, clock[1:], plans["time"]):
        assert begin + int(row[2]) <= end, "the slot is too short"


def test_the_mistakes_of_every_exercise() -> None:
    named = {
        heads[0]: rows for heads, rows in tables() if heads[-2:] == ["expect first", "and then"]
    }
    assert list(named) == list(LESSONS)
    for topic, rows in zip(TOPICS, named.values()):
        items = registry.exercises(topic)
        assert [row[0] for row in rows] == [f"`{item.id}`" for item in items]
        for item, (_, points, minutes, *mistakes) in zip(items, rows):
            assert (int(points), int(minutes)) == (item.points, item.minutes), item.id
            known = {mistake.name for mistake in item.mistakes}
            assert len(set(mistakes)) == 2 and set(mistakes) <= known, item.id


def test_what_is_said_of_kinds_of_exercises() -> None:
    repairs = [item for item in registry.all_exercises() if item.title.startswith("Repair this")]
    with_bug = [
        item for item in repairs if "the given bug" in {mistake.name for mistake in item.mistakes}
    ]
    assert len(repairs) / 2 < len(with_bug) < len(repairs), "most, says the guide"
    assert any(item.title.startswith("On paper") for item in registry.all_exercises())


def test_the_rubric_has_a_line_for_every_lesson_that_asks_for_two_sentences() -> None:
    (rows,) = [rows for heads, rows in tables() if heads[-1] == "the two things to look for"]
    assert [row[0] for row in rows] == [name[:2] for name in LESSONS]
    for path in (ROOT / "authoring").glob("[0-9][0-9]_*/lesson.py"):
        text = path.read_text("utf-8")
        assert "two sentences" in text.lower() and text.count("    Question(\n") == 3, path


def commands() -> list[list[str]]:
    texts = [*"\n".join(blocks("")).splitlines(), *re.findall(r"`(slmlab [^`]+)`", TEXT)]
    texts += [line for text in blocks("yaml") for line in re.findall(r"slmlab grade.*", text)]
    return [shlex.split(text) for text in texts if text.startswith("slmlab ")]


def test_every_command_and_option_is_there() -> None:
    found: Any = typer.main.get_command(app)
    seen = set()
    for _, name, *words in commands():
        command = found.commands[name]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, (name, words)
        seen.add(name)
    for option in re.findall(r"`(--[a-z-]+)[^`]*`", TEXT):
        everywhere = {opt for one in found.commands.values() for p in one.params for opt in p.opts}
        assert option in everywhere, option
    assert {"release", "grade", "regrade", "check-pack", "doctor", "hint"} <= seen


def test_the_release_of_the_day_holds_the_exercises_of_the_day() -> None:
    release = next(words for words in commands() if words[1] == "release" and "day" in words)
    (rows,) = [rows for heads, rows in tables() if heads[0] == "time"]
    wanted = [word for row in rows for word in re.findall(r"`([^`]+)`", row[1])]
    assert release[2].split(",") == wanted


def test_the_workflow_grades_without_the_token() -> None:
    (text,) = blocks("yaml")
    workflow = yaml.safe_load(text)
    steps = workflow["jobs"]["grade"]["steps"]
    (grade,) = [step for step in steps if "slmlab grade" in step.get("run", "")]
    assert "env" not in grade and "env" not in workflow and "env" not in workflow["jobs"]["grade"]
    assert any("bubblewrap" in step.get("run", "") for step in steps)
    assert steps[0]["with"]["persist-credentials"] is False
    assert "${{" not in "".join(step.get("run", "") for step in steps), "an input is no shell code"
    pinned = (ROOT / "constraints.txt").read_text("utf-8")
    (torch,) = re.findall(r"torch==([\d.]+)\+cpu", text)
    assert f"torch=={torch}\n" in pinned


def test_the_gradebook_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grades").mkdir()
    (tmp_path / "grades" / "grades.csv").write_text(
        "student,kv.bytes,total,max,status,reason\ndoejane_1234,3,3,3,graded,\nx_9,0,0,3,graded,\n"
    )
    (tmp_path / "canvas-export.csv").write_text(
        '\ufeffStudent,ID,Week 1 (5678)\n    Points Possible,,3\n"Doe, Jane",1234,\n"Roe, Kim",77,\n'
    )
    (code,) = blocks("python")
    exec(code, {})
    with open("canvas-import.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[1:] == [
        ["    Points Possible", "", "3"],
        ["Doe, Jane", "1234", "3"],
        ["Roe, Kim", "77", ""],
    ]


def test_the_small_files(tmp_path: Path) -> None:
    texts = blocks("")
    (extra,) = [text for text in texts if text.startswith("student,multiplier")]
    (tmp_path / "extra.csv").write_text(extra)
    assert read_multipliers(str(tmp_path / "extra.csv")) == (1.0, {"doejane_1234": 2.0})
    (overrides,) = [text for text in texts if text.startswith("student,exercise")]
    header, row = csv.reader(overrides.splitlines())
    assert tuple(header) == COLUMNS
    assert float(row[2]) <= registry.get(row[1]).points
