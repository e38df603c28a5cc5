"""KV memory over time: who holds which place, after every forward pass of a recorded run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb

from slmlab.serving.snapshot import Snapshot
from slmlab.widgets.card import CardFigure
from slmlab.widgets.paged_serving_bench import Recording
from slmlab.widgets.plot_style import CARD, INK, SERIES, lesson_style

HEIGHT, WIDTH = 256, 720
PALE = 0.34  # what is left of an owner's colour where a place is reserved and holds no token
_COLOURS = np.array([to_rgb(series.colour) for series in SERIES])


def places(frame: Snapshot) -> tuple[np.ndarray, np.ndarray]:
    """Of every place of the memory, in the order of the blocks: its owner and whether it is filled.

    Returns (tokens,) int owner ids, -1 where free, and (tokens,) bool. A shared place belongs to
    the oldest request that holds it.
    """
    size = frame.block_size
    owner = np.full((len(frame.references), size), -1)
    filled = np.zeros((len(frame.references), size), dtype=bool)
    for request in reversed(frame.requests):
        for place, block in enumerate(request.blocks):
            owner[block] = request.id
            filled[block] |= np.arange(size) < request.stored - place * size
    return owner.reshape(-1), filled.reshape(-1)


def picture(run: Recording, passes: int) -> np.ndarray:
    """(HEIGHT, WIDTH, 3) in 0 .. 1: memory from bottom to top, passes from left to right.

    passes: what the width stands for; a shorter run leaves the rest white. Reserved places without
    a token are pale and striped, free ones white.
    """
    image = np.ones((HEIGHT, WIDTH, 3))
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    stripes = ((x + y) // 4) % 2 == 0
    columns = np.arange(WIDTH) * passes // WIDTH
    for at in range(min(passes, run.passes)):
        mine = np.flatnonzero(columns == at)
        if not len(mine):
            continue
        owner, filled = places(run.frames[at])
        rows = np.arange(HEIGHT) * len(owner) // HEIGHT
        owner, filled = owner[rows], filled[rows]
        colour = _COLOURS[owner % len(_COLOURS)]  # (HEIGHT, 3)
        pale = 1 - PALE * (1 - colour)
        for column in mine:
            shown = np.where(stripes[:, column : column + 1], pale, 1.0)
            shown = np.where(filled[:, None], colour, shown)
            image[:, column] = np.where(owner[:, None] < 0, 1.0, shown)
    return image


def memory_map(runs: Sequence[Recording], message: str = "") -> CardFigure:
    """One panel a run, all on one axis of passes: a colour a request, pale stripes for waste."""
    passes = max(run.passes for run in runs)
    height = 1.55 * len(runs) + 0.75
    figure = CardFigure(figsize=(7.2, height), layout="constrained", alt=message)
    with lesson_style():
        figure.set_message(message)
        axes: Any = figure.subplots(len(runs), 1, sharex=True, squeeze=False)[:, 0]
        for panel, run in zip(axes, runs, strict=True):
            tokens = run.frames[0].block_size * len(run.frames[0].references)
            panel.imshow(
                picture(run, passes),
                origin="lower",
                extent=(0, passes, 0, tokens),
                aspect="auto",
                interpolation="nearest",
            )
            panel.set_facecolor(CARD)
            panel.set_yticks([0, tokens // 2, tokens])
            panel.set_ylabel("KV memory\n(tokens)")
            panel.axvline(run.passes, color=INK, linewidth=1.0)
            panel.set_title(
                f"{run.name}: {run.passes} passes, {run.held:.0%} of the memory holds a token",
                fontsize=9.5,
            )
        axes[-1].set_xlabel(
            "time (forward passes)   colour: a request · pale stripes: reserved, no token · white: free"
        )
    return figure
