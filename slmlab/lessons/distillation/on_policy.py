"""distillation.on_policy: of a text that the student went on with, the predictions that count."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from slmlab.checking import Case, Exact, Exercise, Mistake


def cases(seed: int) -> list[Case]:
    """A row that stops; one that does not; one whose prompt holds the stop id; several together."""
    draw = random.Random(seed)
    stop = draw.randint(0, 3)

    def row(time: int, prompt: int, written: int, in_prompt: bool = False) -> list[int]:
        """written: tokens with the stop id as the last; behind it the row is filled with it."""
        others = [token for token in range(10) if token != stop]
        tokens = [draw.choice(others) for _ in range(time)]
        if in_prompt:
            tokens[draw.randrange(prompt)] = stop
        for at in range(prompt + written - 1, time):
            tokens[at] = stop
        return tokens

    def case(time: int, prompt: int, *rows: tuple[int, bool]) -> Case:
        ids = [row(time, prompt, written, in_prompt) for written, in_prompt in rows]
        return Case({"ids": torch.tensor(ids), "prompt": prompt, "stop": stop})

    return [
        case(4, 1, (2, False)),
        case(4, 2, (9, False)),
        case(5, 2, (9, True)),
        case(6, 2, (2, False)),
        case(7, 3, (2, False), (draw.randint(2, 3), True)),
        case(8, draw.randint(2, 3), (1, False), (3, False), (9, True), (4, False)),
    ]


def reference(ids: Tensor, prompt: int, stop: int) -> Tensor:
    """What the package's writing of rows marks: up to and with the first stop id behind the prompt."""
    return _shift(_written(ids, prompt, stop))


def _written(ids: Tensor, prompt: int, stop: int) -> Tensor:
    """(rows, time) bool: tokens that the student wrote."""
    behind = torch.arange(ids.shape[1]) >= prompt
    stops = (ids == stop) & behind
    before = stops.cumsum(1) - stops.int()  # stop ids in front of each token
    return behind & (before == 0)


def _shift(tokens: Tensor) -> Tensor:
    """From tokens to the predictions of them."""
    return tokens[:, 1:]


def _prompt_too(ids: Tensor, prompt: int, stop: int) -> Tensor:
    written = _written(ids, prompt, stop)
    written[:, :prompt] = True
    return _shift(written)


def _without_the_stop(ids: Tensor, prompt: int, stop: int) -> Tensor:
    return _shift(_written(ids, prompt, stop) & (ids != stop))


def _filling_too(ids: Tensor, prompt: int, stop: int) -> Tensor:
    return _shift((torch.arange(ids.shape[1]) >= prompt).expand(ids.shape).clone())


def _not_shifted(ids: Tensor, prompt: int, stop: int) -> Tensor:
    return _written(ids, prompt, stop)[:, :-1]


def _first_missed(ids: Tensor, prompt: int, stop: int) -> Tensor:
    written = _written(ids, prompt, stop)
    written[:, prompt] = False
    return _shift(written)


def _any_stop_ends(ids: Tensor, prompt: int, stop: int) -> Tensor:
    behind = torch.arange(ids.shape[1]) >= prompt
    stops = ids == stop
    return _shift(behind & (stops.cumsum(1) - stops.int() == 0))


def _row_by_row(ids: Tensor, prompt: int, stop: int) -> Tensor:
    answer = []
    for row in ids.tolist():
        flags = [False] * (len(row) - 1)
        for at in range(prompt, len(row)):
            flags[at - 1] = True
            if row[at] == stop:
                break
        answer.append(flags)
    return torch.tensor(answer)


ON_POLICY = Exercise(
    id="distillation.on_policy",
    title="On-policy: the predictions that the student wrote",
    points=3,
    minutes=7,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "the prompt too",
            "Predictions inside the prompt are marked: the student did not write those tokens. Which "
            "position predicts the first one that it did?",
            _prompt_too,
        ),
        Mistake(
            "the stop id left out",
            "The prediction of the stop id is not marked: the student wrote it, and without it nobody "
            "tells it when to stop. Up to which token does a row count?",
            _without_the_stop,
        ),
        Mistake(
            "filling counted",
            "What stands behind the first stop id is marked: those ids only fill the row. Who wrote "
            "them?",
            _filling_too,
        ),
        Mistake(
            "tokens instead of predictions",
            "You mark the positions of the tokens: column t is the prediction of token t + 1. Which "
            "column judges the first token behind the prompt?",
            _not_shifted,
        ),
        Mistake(
            "the first written token missed",
            "You begin one column late: the first written token is predicted from the prompt's last. "
            "Which column is that?",
            _first_missed,
        ),
        Mistake(
            "a stop id in the prompt",
            "Right where the prompt holds no stop id: there it ends the row before the student has "
            "written a word. From which token on do you look for it?",
            _any_stop_ends,
        ),
    ),
    hints=(
        "Each row of the answer has as many True as the student wrote tokens, the stop id among them, "
        "in one piece, and the first stands in column prompt - 1.",
        "ids [5, 7, 9, 0, 0], prompt 2, stop 0. Written: 9 and the first 0, tokens 2 and 3. They are "
        "predicted in columns 1 and 2: [no, yes, yes, no].",
        "for each row: for at = prompt .. time - 1:\n"
        "    mark column at - 1\n"
        "    leave the loop where ids[at] is stop",
    ),
    compare=Exact(),
    alternatives=(_row_by_row,),
)
