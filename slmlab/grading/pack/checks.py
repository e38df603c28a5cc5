"""`slmlab check-pack`: whether a pack's specs and its handout hold, before a learner meets them."""

from __future__ import annotations

import contextlib
import io
import linecache
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import slmlab
import slmlab.checking
from slmlab.checking import proof
from slmlab.checking.runner import run
from slmlab.checking.spec import Exercise
from slmlab.grading.pack.found import Pack
from slmlab.grading.pack.handout import Cells, Handout, ids_of, read_handout

COLUMNS = ("spec", "blank", "solution", "mistakes", "handout")
_MARKS = ("BEGIN SOLUTION", "END SOLUTION", "HIDDEN TESTS")


@dataclass
class Checked:
    """One exercise: for each of COLUMNS what does not hold; an empty list where it does."""

    exercise: Exercise
    problems: dict[str, list[str]] = field(default_factory=lambda: {name: [] for name in COLUMNS})

    @property
    def holds(self) -> bool:
        """Nothing is wrong."""
        return not any(self.problems.values())


@dataclass(frozen=True)
class Findings:
    """What check_pack found: a row an exercise, and problems that belong to none."""

    rows: tuple[Checked, ...]
    problems: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Nothing is wrong."""
        return not self.problems and all(row.holds for row in self.rows)


def check_pack(pack: Pack, seeds: Sequence[int] = proof.SEEDS) -> Findings:
    """Check an open pack.

    spec       fields, cases and the tuple; see slmlab.checking.proof
    blank      a body that raises NotImplementedError reports unattempted
    solution   the reference, every alternative and the handout's solution pass
    mistakes   each fails with its own sentence
    handout    one cell a exercise, blank in what learners get, its solution nowhere else

    The pack's own code runs in this process.
    """
    rows = {item.id: Checked(item) for item in pack.exercises}
    problems = list(pack.problems)
    for row in rows.values():
        _check_spec(row, seeds)
    handouts = []
    for path in pack.handouts:
        try:
            handouts.append(read_handout(path))
        except ValueError as error:
            problems.append(str(error))
    for handout in handouts:
        problems += _check_handout(handout, rows, pack, seeds)
    if not rows and not problems:
        problems.append("The pack offers no exercise: EXERCISES is empty.")
    if not pack.handouts:
        problems.append("The pack has no handout: write handout.py or handout.ipynb beside it.")
    for name, row in rows.items():
        places = [handout.path.name for handout in handouts for _ in _cells_with(handout, name)]
        if not places and handouts:
            row.problems["handout"].append("no handout has a cell for it")
        elif len(places) > 1:
            row.problems["handout"].append(
                f"{len(places)} handouts have a cell for it ({', '.join(places)})"
            )
    return Findings(tuple(rows.values()), tuple(problems))


def _check_spec(row: Checked, seeds: Sequence[int]) -> None:
    parts: tuple[tuple[str, Callable[[], list[str]]], ...] = (
        ("spec", lambda: proof.fields(row.exercise)),
        ("spec", lambda: proof.cases(row.exercise, seeds)),
        ("blank", lambda: proof.blank(row.exercise, seeds)),
        ("solution", lambda: proof.right_answers(row.exercise, seeds)),
        ("mistakes", lambda: proof.mistakes(row.exercise, seeds)),
    )
    for column, part in parts:
        try:
            row.problems[column] += part()
        except Exception as error:  # the author's cases, reference or comparison
            row.problems[column].append(f"{type(error).__name__}: {error}")


def _check_handout(
    handout: Handout, rows: dict[str, Checked], pack: Pack, seeds: Sequence[int]
) -> list[str]:
    """Adds to `rows`; gives the problems that belong to no exercise."""
    name = handout.path.name
    problems = []
    for place, cell in enumerate(handout.blank):
        names = ids_of(cell)
        problems += [
            f"{name}, cell {place}: there is no exercise {one!r} in this pack."
            for one in names
            if one not in rows and one.split(".")[0] in pack.topics
        ]
        if len(names) > 1:
            problems.append(f"{name}, cell {place}: one exercise a cell, not {', '.join(names)}.")
        if any(mark in cell["source"] for mark in _MARKS):
            problems.append(f"{name}, cell {place}: a mark is left in what learners get.")
    blank, trouble = _functions(handout.blank, f"{name} (blank)")
    problems += [f"{name}: {sentence}" for sentence in trouble]
    solved, trouble = _functions(handout.solved, name) if handout.has_solutions else ({}, [])
    problems += [f"{name}, solved: {sentence}" for sentence in trouble]
    for exercise_id, row in rows.items():
        if not _cells_with(handout, exercise_id):
            continue
        for column, functions, wanted in (
            ("handout", blank, "unattempted"),
            ("solution", solved, "passed"),
        ):
            for function in functions.get(exercise_id, []):
                row.problems[column] += _wrong_outcome(row.exercise, function, wanted, seeds, name)
        if not blank.get(exercise_id):
            row.problems["handout"].append(f"{name}: its cell defines no function under it")
        if _leaks(handout, exercise_id):
            row.problems["handout"].append(f"{name}: its solution stands in another cell as well")
    return problems


def _wrong_outcome(
    exercise: Exercise, function: Callable[..., Any], wanted: str, seeds: Sequence[int], name: str
) -> list[str]:
    try:
        outcomes = sorted({run(exercise, function, seed).outcome for seed in seeds})
    except Exception as error:
        return [f"{name}: {type(error).__name__}: {error}"]
    if outcomes == [wanted]:
        return []
    what = "the blank" if wanted == "unattempted" else "the solution"
    return [f"{name}: {what} reports {', '.join(outcomes)}, not {wanted}"]


def _cells_with(handout: Handout, exercise_id: str) -> list[int]:
    return [
        place
        for place, cell in enumerate(handout.blank)
        for name in ids_of(cell)
        if name == exercise_id
    ]


def _leaks(handout: Handout, exercise_id: str) -> bool:
    """The lines that were cleared are still in the blank, as a block."""
    for place in _cells_with(handout, exercise_id):
        before = _lines(handout.solved[place]["source"])
        left = set(_lines(handout.blank[place]["source"]))
        cleared = [line for line in before if line not in left and not line.startswith("### ")]
        if not cleared:
            continue
        block = "\n".join(cleared)
        for cell in handout.blank:
            if block in "\n".join(_lines(cell["source"])):
                return True
    return False


def _lines(source: str) -> list[str]:
    return [line.strip() for line in source.splitlines() if line.strip()]


def _functions(cells: Cells, name: str) -> tuple[dict[str, list[Callable[..., Any]]], list[str]]:
    """Runs the code cells; exercise id -> the functions under it, and what failed."""
    found: dict[str, list[Callable[..., Any]]] = {}
    problems = []
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with _recording(found), contextlib.redirect_stdout(io.StringIO()):
        for place, cell in enumerate(cells):
            if cell["cell_type"] != "code":
                continue
            file = f"<{name}, cell {place}>"
            source = cell["source"] + "\n"
            linecache.cache[file] = (len(source), None, source.splitlines(True), file)
            try:
                exec(compile(source, file, "exec"), namespace)
            except Exception as error:
                problems.append(f"cell {place} fails: {type(error).__name__}: {error}")
            finally:
                linecache.cache.pop(file, None)
    return found, problems


@contextlib.contextmanager
def _recording(found: dict[str, list[Callable[..., Any]]]) -> Iterator[None]:
    """`from slmlab import exercise` records functions; nothing is checked, shown or stored."""

    def exercise(id: str) -> Callable[[Any], Any]:
        def decorate(function: Any) -> Any:
            found.setdefault(id, []).append(function)
            return function

        return decorate

    def nothing(*_: Any, **__: Any) -> None:
        return None

    replaced = dict.fromkeys(("hint", "progress", "predict", "measured", "ask"), nothing)
    before = {module: dict(vars(module)) for module in (slmlab, slmlab.checking)}
    for module, names in before.items():
        for name, value in (replaced | {"exercise": exercise}).items():
            if name in names or module is slmlab:
                setattr(module, name, value)
    try:
        yield
    finally:
        for module, names in before.items():
            for name in (*replaced, "exercise"):
                if name in names:
                    setattr(module, name, names[name])
                elif name in vars(module):
                    delattr(module, name)
