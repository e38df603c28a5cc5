"""What came back from the sandbox -> the grade of one exercise.

The comparison and the diagnosis are those of the notebook (`slmlab.checking`), so that an honest
answer gets the same outcome, credit and sentence in both places. What the sandbox adds is the ways
in which there may be no answer: never defined, or not returned before the process ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from slmlab.checking import Case, Execution, Exercise, Run, diagnose, judge
from slmlab.checking.runner import OUTCOMES, expected
from slmlab.grading.bounds import TooMuchWork, bounded, bounded_sentence, limited
from slmlab.grading.collect.named import ids_named
from slmlab.grading.records import Answered, Cell, CellRun, ExerciseGrade, GradeOutcome, Transcript

JUDGING_SECONDS = 10.0  # of CPU, to compare one exercise of one submission; as many to diagnose it
JUDGING_WALL_SECONDS = 120.0
JUDGING_MB = 1024
MAX_DEFINITIONS = 20  # of one exercise; of more, the last ones are judged
# Of an exercise with one case, which has one answer for everybody: fewer guesses.
MAX_DEFINITIONS_OF_ONE_CASE = 3
MANY_DEFINITIONS = 5  # more are flagged with their number
MAX_CASES_SHOWN = 6

DUPLICATED, MOVED = "duplicated", "moved"
NOT_DIAGNOSED = "not diagnosed"
NO_DIAGNOSIS = "There is no diagnosis: the grader could not say what is wrong with this answer."


@dataclass(frozen=True)
class Judged:
    """The grade of one exercise, and what only a feedback page shows.

    example   (name, text) rows of the smallest case, as in the notebook
    notes     remarks that change nothing; printed: the first that the learner's code printed
    """

    grade: ExerciseGrade
    example: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    printed: str = ""

    def detail(self) -> dict[str, Any]:
        """Everything but the grade, as plain data."""
        return {
            "example": [list(row) for row in self.example],
            "notes": list(self.notes),
            "printed": self.printed,
        }


@dataclass(frozen=True)
class _Tried:
    """One definition: the run of the cases it returned (None: of none), and where it stands."""

    answered: Answered
    run: Run | None
    missing: int = 0

    @property
    def rank(self) -> tuple[int, int, int]:
        """Orders definitions from worst to best."""
        if self.run is None:
            return (0, -self.missing, -1)
        return (self.run.passed, -self.missing, OUTCOMES.index(self.run.outcome))


@dataclass(frozen=True)
class Evidence:
    """A submission's cells and what the sandbox said of them."""

    cells: tuple[Cell, ...]
    transcript: Transcript
    runs: dict[int, CellRun] = field(default_factory=dict)

    @classmethod
    def of(cls, cells: tuple[Cell, ...], transcript: Transcript) -> Evidence:
        """With the cell runs by the place of the cell in the request; the last one counts."""
        return cls(cells, transcript, {run.cell: run for run in transcript.cells})


def judge_exercise(
    exercise: Exercise,
    cases: Sequence[Case],
    evidence: Evidence,
    moved: bool = False,
    answers: Sequence[Any] | None = None,
) -> Judged:
    """The grade of one exercise from the outputs of all its definitions; the best one counts.

    cases: those whose inputs the sandbox was given; answers: the reference's, where they are known
    already. What takes longer than JUDGING_SECONDS to compare is not right, and the sentence says
    so; a diagnosis that fails costs its sentence only. Whatever else goes wrong here is the grader's
    own failure and raises: RuntimeError where the right answer takes too long to compare too.
    """
    definitions = evidence.transcript.answers.get(exercise.id, ())
    flags = _flags(len(definitions)) + (MOVED,) * moved
    if not definitions:
        return Judged(_absent(exercise, len(cases), evidence))
    most = MAX_DEFINITIONS if len(cases) > 1 else MAX_DEFINITIONS_OF_ONE_CASE
    wanted: Sequence[Any] = ()
    try:
        with _limited():
            wanted = expected(exercise, cases) if answers is None else answers
            tried = [_try(exercise, cases, wanted, one) for one in definitions[-most:]]
    except (TooMuchWork, MemoryError) as error:
        what = "memory" if isinstance(error, MemoryError) else f"{JUDGING_SECONDS:g} s"
        _check_right_answer_fits(exercise, cases, wanted, what)
        sentence = f"Your answer could not be compared within the grader's limit of {what}."
        return Judged(_grade(exercise, "wrong", 0, len(cases), sentence, flags=flags))
    # Among equals the last one: it is what the learner wrote last.
    best = max(enumerate(tried), key=lambda pair: (pair[1].rank, pair[0]))[1]
    return _judged(exercise, len(cases), best, evidence, flags)


def _limited() -> AbstractContextManager[None]:
    return limited(JUDGING_SECONDS, JUDGING_WALL_SECONDS, JUDGING_MB)


def _flags(definitions: int) -> tuple[str, ...]:
    if definitions > MANY_DEFINITIONS:
        return (DUPLICATED, f"there in {definitions} definitions")
    return (DUPLICATED,) * (definitions > 1)


def _check_right_answer_fits(
    exercise: Exercise, cases: Sequence[Case], wanted: Sequence[Any], limit: str
) -> None:
    """Raises RuntimeError where comparing the reference's own answer meets the limit too."""
    try:
        with _limited():
            right = wanted or expected(exercise, cases)
            judge(exercise, cases, [Execution(output=answer) for answer in right], right)
    except (TooMuchWork, MemoryError):
        raise RuntimeError(
            f"the right answer of {exercise.id!r} cannot be compared within {limit}: the exercise "
            "must compare with less work."
        ) from None


def _judged(
    exercise: Exercise, total: int, best: _Tried, evidence: Evidence, flags: tuple[str, ...]
) -> Judged:
    run = best.run
    if run is None:
        return Judged(_cut_short(exercise, best, total, "", evidence, flags))
    sentence, mistake = "", ""
    rows: tuple[tuple[str, str], ...] = ()
    try:
        with _limited():
            diagnosis = diagnose(exercise, run)
            if diagnosis is not None:
                sentence = diagnosis.sentence
                mistake = diagnosis.mistake.name if diagnosis.mistake else ""
                example = diagnosis.counterexample
                rows = () if example is None else example.rows[:MAX_CASES_SHOWN]
    except (TooMuchWork, Exception):
        # The cases are judged by now, and what they earned stays.
        sentence, mistake, rows = NO_DIAGNOSIS, "", ()
        flags = (*flags, NOT_DIAGNOSED)
    if best.missing:
        grade = _cut_short(exercise, best, total, sentence, evidence, flags)
    else:
        grade = _grade(exercise, run.outcome, run.passed, total, sentence, mistake, flags)
    return Judged(
        grade,
        tuple((name, bounded_sentence(text)) for name, text in rows),
        _notes(run),
        next((r.execution.printed for r in run.results if r.execution.printed), ""),
    )


def _try(
    exercise: Exercise, cases: Sequence[Case], wanted: Sequence[Any], answered: Answered
) -> _Tried:
    returned = [
        bounded(execution, tuple(case.arguments))
        for case, execution in zip(cases, answered.executions)
    ]
    count = len(returned)
    run = judge(exercise, cases[:count], returned, wanted[:count]) if count else None
    return _Tried(answered, run, len(cases) - count)


def _notes(run: Run) -> tuple[str, ...]:
    changed = sorted({name for item in run.results for name in item.execution.changed})
    if not changed:
        return ()
    names = " and ".join(f"`{name}`" for name in changed)
    return (f"Your function edits {names} in place: whoever calls it loses the original.",)


def _cut_short(
    exercise: Exercise,
    tried: _Tried,
    total: int,
    sentence: str,
    evidence: Evidence,
    flags: tuple[str, ...],
) -> ExerciseGrade:
    cell = evidence.runs.get(tried.answered.cell)
    why = evidence.transcript.reason
    if cell is not None and cell.status == "timeout":
        why = cell.message or "Its cell did not end in time."
    start = f"Your function returned {total - tried.missing} of {total} cases."
    passed = tried.run.passed if tried.run is not None else 0
    text = " ".join(part for part in (start, why, sentence) if part)
    return _grade(exercise, "not returned", passed, total, text, flags=flags)


def _absent(exercise: Exercise, total: int, evidence: Evidence) -> ExerciseGrade:
    """The grade where no definition of the exercise was met: why, as far as it can be told."""
    named = [place for place, cell in enumerate(evidence.cells) if exercise.id in ids_named([cell])]
    if not named:
        return _grade(exercise, "missing", 0, total, "No cell of the submission defines it.")
    runs = [evidence.runs[place] for place in named if place in evidence.runs]
    for run in runs:
        if run.status == "raised":
            what = f": {run.message}" if run.message else "."
            sentence = f"The cell that defines it raised an exception{what}"
            return _grade(exercise, "error", 0, total, sentence)
        if run.status == "timeout":
            sentence = run.message or "The cell that defines it did not end in time."
            return _grade(exercise, "not returned", 0, total, sentence)
    if not runs or evidence.transcript.ended != "finished":
        why = evidence.transcript.reason
        sentence = f"The run ended before the function was defined. {why}".strip()
        return _grade(exercise, "not returned", 0, total, sentence)
    sentence = "A cell names it, but no function was defined under its @exercise."
    return _grade(exercise, "missing", 0, total, sentence)


def _grade(
    exercise: Exercise,
    outcome: GradeOutcome,
    passed: int,
    total: int,
    sentence: str,
    mistake: str = "",
    flags: tuple[str, ...] = (),
) -> ExerciseGrade:
    return ExerciseGrade(
        exercise_id=exercise.id,
        title=exercise.title,
        points=round(exercise.points * passed / total, 2),
        max_points=exercise.points,
        outcome=outcome,
        credit=passed / total,
        passed=passed,
        total=total,
        sentence=bounded_sentence(sentence),
        mistake=mistake,
        flags=flags,
    )


def ungraded(
    exercise: Exercise,
    total: int,
    outcome: GradeOutcome,
    sentence: str,
    flags: tuple[str, ...] = (),
) -> ExerciseGrade:
    """The grade of an exercise of which nothing could be run or judged."""
    return _grade(exercise, outcome, 0, total, sentence, flags=flags)


def moved(order: Sequence[str], transcript: Transcript) -> frozenset[str]:
    """Ids that stand elsewhere than in the handout: all but a longest run in its order.

    order: the ids as the handout has them. Topics stand in notebooks of their own, so only ids of
    one topic are compared.
    """
    first = {name: answers[0].cell for name, answers in transcript.answers.items() if answers}
    found: set[str] = set()
    for topic in {name.split(".", 1)[0] for name in order}:
        here = [name for name in order if name in first and name.split(".", 1)[0] == topic]
        found |= set(here) - set(_longest_rising(here, first.__getitem__))
    return frozenset(found)


def _longest_rising(items: Sequence[str], place: Callable[[str], int]) -> list[str]:
    best: list[list[str]] = []
    for item in items:
        before = [run for run in best if place(run[-1]) <= place(item)]
        best.append([*max(before, key=len, default=[]), item])
    return max(best, key=len, default=[])
