"""Tables and pages: nothing a student writes becomes a formula, a tag or another student's row."""

from __future__ import annotations

import csv
import io
import json
from html.parser import HTMLParser
from typing import Any

import pytest

from slmlab.grading.overrides import HEADER, read_overrides
from slmlab.grading.plan import Plan
from slmlab.grading.records import ExerciseGrade, Grade
from slmlab.grading.reports import (
    Results,
    class_html,
    feedback_html,
    grades_csv,
    statistics,
    summary_json,
)
from slmlab.grading.store import safe_name
from slmlab.grading.tables_in import bare

IDS = ("anatomy.a", "anatomy.b")
PLAN = Plan(IDS, 7)
NASTY = "<script>alert(1)</script>{{ 7*7 }}"


def _exercise(name: str, passed: int, **fields) -> ExerciseGrade:
    outcome = "passed" if passed == 4 else "wrong"
    defaults: dict[str, Any] = {
        "exercise_id": name,
        "title": f"Title of {name}",
        "points": 3 * passed / 4,
        "max_points": 3,
        "outcome": outcome,
        "credit": passed / 4,
        "passed": passed,
        "total": 4,
        "sentence": "" if passed == 4 else "Something is off.",
    }
    return ExerciseGrade(**(defaults | fields))


def _grade(student: str, *passed: int, **fields) -> Grade:
    exercises = tuple(_exercise(name, n) for name, n in zip(IDS, passed, strict=True))
    defaults: dict[str, Any] = {
        "student": student,
        "source": f"{student}/n.ipynb",
        "sha256": "0" * 64,
        "exercises": exercises,
        "total": sum(item.points for item in exercises),
        "max_total": 6,
        "status": "graded",
        "audit": {"timings": {"seconds": 1.5}, "seed": 7},
    }
    return Grade(**(defaults | fields))


def _rows(results: Results) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(grades_csv(results))))


def test_the_table_has_a_column_for_each_exercise_and_a_row_for_each_student():
    rows = _rows(Results(PLAN, (_grade("zoe", 4, 1), _grade("Ada", 0, 4))))
    assert list(rows[0]) == ["student", *IDS, "total", "max", "status", "reason"]
    assert [row["student"] for row in rows] == ["Ada", "zoe"]
    assert rows[1] == {
        "student": "zoe",
        "anatomy.a": "3",
        "anatomy.b": "0.75",
        "total": "3.75",
        "max": "6",
        "status": "graded",
        "reason": "",
    }


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\uff1d"])
def test_no_name_or_reason_is_a_formula(start):
    name = f'{start}HYPERLINK("http://x","y")'
    row = _rows(Results(PLAN, (_grade(name, 4, 4, status="stopped", reason=name),)))[0]
    assert row["student"].startswith("'") and row["reason"].startswith("'")
    assert row["student"] == "'" + name.replace("\t", " ")


@pytest.mark.parametrize("name", ["  =1+1", "ann;=cmd()", "ann; @x", "a|-1", "=a;=b"])
def test_no_separator_makes_a_formula_of_a_part(name):
    text = grades_csv(Results(PLAN, (_grade(name, 4, 4),)))
    for separator in ",;\t|":
        for row in csv.reader(io.StringIO(text), delimiter=separator):
            assert not [cell for cell in row if cell.lstrip().startswith(("=", "+", "-", "@"))]
    written = _rows(Results(PLAN, (_grade(name, 4, 4),)))[0]["student"]
    assert written != name and bare(written) == name


def test_names_of_any_script_and_separators_survive_the_table():
    names = ["Đặng Thị, Ánh", 'O"Neill; x', "李雷", "two\nlines", "broken\udcff"]
    rows = _rows(Results(PLAN, tuple(_grade(name, 4, 4) for name in names)))
    assert {row["student"] for row in rows} == {*names[:3], "two lines", r"broken\xdcff"}


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def _tags(html: str) -> _Tags:
    parser = _Tags()
    parser.feed(html)
    return parser


def _hostile() -> Results:
    exercises = (
        _exercise(IDS[0], 1, sentence=NASTY, mistake=NASTY, flags=(NASTY,), title=NASTY),
        _exercise(IDS[1], 4),
    )
    detail = {"example": [[NASTY, NASTY]], "notes": [NASTY], "printed": NASTY}
    cells = [{"notebook": NASTY, "cell": 0, "status": "raised", "message": NASTY, "printed": ""}]
    grade = _grade(
        NASTY,
        1,
        4,
        exercises=exercises,
        status="stopped",
        reason=NASTY,
        flags=(NASTY,),
        source=NASTY,
        audit={"details": {IDS[0]: detail}, "cells": cells},
    )
    return Results(PLAN, (grade,))


def test_what_a_student_wrote_is_shown_and_never_markup():
    results = _hostile()
    for html in (feedback_html(results.grades[0], results), class_html(results)):
        found = _tags(html)
        assert "script" not in found.tags
        assert not [name for name, _ in found.attributes if name.startswith("on")]
        assert "&lt;script&gt;" in html and "{{ 7*7 }}" in html


def test_pages_need_no_javascript_and_nothing_from_elsewhere():
    results = Results(PLAN, (_grade("ada", 4, 1),))
    for html in (feedback_html(results.grades[0], results), class_html(results)):
        found = _tags(html)
        assert not {"script", "link", "img", "iframe"} & set(found.tags)
        links = [value or "" for name, value in found.attributes if name in ("href", "src")]
        assert not [link for link in links if ":" in link or link.startswith("/")]
        assert ("name", "color-scheme") in found.attributes


def test_nothing_that_varies_from_run_to_run_is_in_the_reports():
    def slow(seconds: float) -> Results:
        return Results(PLAN, (_grade("ada", 4, 1, audit={"timings": {"seconds": seconds}}),))

    for make in (grades_csv, class_html, summary_json):
        assert make(slow(1.25)) == make(slow(77.5))
    assert feedback_html(slow(1).grades[0], slow(1)) == feedback_html(slow(9).grades[0], slow(9))


def test_a_run_without_a_sandbox_says_so_everywhere():
    grade = _grade("ada", 4, 4, audit={"sandbox": {"kind": "none"}})
    results = Results(PLAN, (grade,))
    texts = [grades_csv(results), class_html(results), summary_json(results)]
    for text in (*texts, feedback_html(grade, results)):
        assert "without a sandbox" in text


def test_the_class_page_counts_mistakes_and_orders_exercises():
    def with_mistake(name: str, passed: int) -> Grade:
        item = _exercise(IDS[0], passed, mistake="wrong axis")
        return _grade(name, passed, 4, exercises=(item, _exercise(IDS[1], 4)))

    results = Results(PLAN, (with_mistake("a", 1), with_mistake("b", 2), _grade("c", 4, 4)))
    assert [row.exercise_id for row in statistics.hardest(results)] == list(IDS)
    assert [(m.name, m.count) for m in statistics.mistakes(results)] == [("wrong axis", 2)]
    assert sum(item.count for item in statistics.distribution(statistics.shares(results))) == 3
    assert statistics.distribution([1.0, 0.0, 0.3])[3].count == 1


def test_decisions_by_hand_count_and_are_shown_as_such(tmp_path):
    path = tmp_path / "overrides.csv"
    path.write_text(HEADER + '\'=ada,anatomy.b,2.5,"clever, if odd",R. Roe\n', encoding="utf-8")
    decided = read_overrides(path, {"=ada"}, dict.fromkeys(IDS, 3.0))
    results = Results(PLAN, (_grade("=ada", 4, 1),), decided)
    row = _rows(results)[0]
    assert (row["anatomy.b"], row["total"]) == ("2.5", "5.5")
    assert "set by hand: anatomy.b" in row["reason"]
    for html in (feedback_html(results.grades[0], results), class_html(results)):
        assert "Set by hand to 2.5 points by R. Roe: clever, if odd." in html
    stored = json.loads(summary_json(results))
    assert stored["students"][0]["exercises"][1]["points_of_the_check"] == 0.75


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("bob,anatomy.a,1,,me", "no student 'bob'"),
        ("ada,anatomy.z,1,,me", "no exercise"),
        ("ada,anatomy.a,4,,me", "0 to 3"),
        ("ada,anatomy.a,-1,,me", "0 to 3"),
        ("ada,anatomy.a,nan,,me", "write a number"),
        ("ada,anatomy.a,1,,", "who is empty"),
        ("ada,anatomy.a,1,,me\nada,anatomy.a,2,,me", "twice"),
        ("ada,anatomy.a,1,a,b,c", "quotes"),
    ],
)
def test_a_decision_that_cannot_hold_names_its_line(tmp_path, line, said):
    path = tmp_path / "overrides.csv"
    path.write_text(HEADER + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line [23]") as caught:
        read_overrides(path, {"ada"}, dict.fromkeys(IDS, 3.0))
    assert said in str(caught.value)


def test_what_a_spreadsheet_saves_is_read(tmp_path):
    path = tmp_path / "overrides.csv"
    text = "\ufeffStudent;Exercise;Points;Reason;Who\r\nada;anatomy.a;1,5;;me\r\n;;;;\r\n"
    path.write_text(text, encoding="utf-8", newline="")
    found = read_overrides(path, {"ada"}, dict.fromkeys(IDS, 3.0))
    assert found["ada", "anatomy.a"].points == 1.5


def test_safe_names_are_single_plain_and_different():
    names = [
        "ada",
        "Ada",
        "ADA",
        "..",
        ".",
        "a/b",
        "a\\b",
        "a b",
        "con",
        "é",
        "e\u0301",
        "李雷",
        "x" * 300,
        "x" * 299,
        "💥" * 200,
        "\udcff",
        "-rf",
        "a\x00b",
        "ada\n",
    ]
    names += [safe_name("Ada")]
    places = [safe_name(name) for name in names]
    assert len({place.casefold() for place in places}) == len(names)
    for place in places:
        assert not set(place) & set('/\\:*?"<>|\0\n ') and place[0] not in ".-"
        assert len(place.encode("utf-8")) < 250
