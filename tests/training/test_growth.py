"""Growing in depth: no output changes, resuming stays exact, and the schedule is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from slmlab.models import Decoder
from slmlab.training.batches import Batches
from slmlab.training.growth import first_layers
from slmlab.training.initialisation import initial_decoder
from slmlab.training.pretrain import train
from slmlab.training.recipe import Recipe
from slmlab.training.stage import Stage
from tests.training.test_training import SMALL, SOURCES

ROWS = {"docs": 3, "code": 2}


def growing(step: int = 5, rows: dict[str, int] = ROWS) -> Recipe:
    """SMALL with three layers, of which two wait until ``step``; then the batches hold ``rows``."""
    stages = (Stage(step, ROWS, layers=1), Stage(12 - step, rows))
    return dataclasses.replace(SMALL, num_hidden_layers=3, stages=stages)


GROWING = growing()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_growing_changes_no_logit() -> None:
    decoder = initial_decoder(GROWING)

    def down(layer: str) -> torch.Tensor:
        return decoder.get_parameter(f"{layer}.mlp.down_proj.weight")

    ids = torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        down("layers.0").normal_()  # a first layer that has learned
        shallow = first_layers(decoder, 1)
        assert torch.equal(shallow(ids), decoder(ids))
        down("layers.0").normal_()
        assert torch.equal(shallow(ids), decoder(ids))  # shared, not copied
        down("layers.2").normal_()
        assert not torch.equal(shallow(ids), decoder(ids))
    assert len(shallow.layers) == shallow.config.num_hidden_layers == 1
    for count in (0, 4):
        with pytest.raises(ValueError, match="between 1 and 3"):
            first_layers(decoder, count)


def test_later_layers_wait_for_their_step(tmp_path: Path) -> None:
    start = initial_decoder(GROWING)
    train(GROWING, tmp_path / "run", sources=SOURCES, stop_after=5)
    before = load_file(tmp_path / "run-work" / "checkpoint.safetensors")
    for name, parameter in start.named_parameters():
        waited = name.startswith(("layers.1.", "layers.2."))
        assert torch.equal(before[f"model/{name}"], parameter) == waited, name
        assert any(key.startswith(f"optimizer/{name}") for key in before) != waited, name
    train(GROWING, tmp_path / "run", sources=SOURCES)
    after = load_file(tmp_path / "run-work" / "checkpoint.safetensors")
    moved = [n for n, p in start.named_parameters() if not torch.equal(after[f"model/{n}"], p)]
    assert len(moved) == len(list(start.named_parameters()))
    assert Decoder.from_pretrained(tmp_path / "run").config == GROWING.model_config()


def test_interrupted_around_the_growth_equals_uninterrupted(tmp_path: Path) -> None:
    train(GROWING, tmp_path / "whole", sources=SOURCES)
    for stop in (4, 5, 6, None):
        train(GROWING, tmp_path / "parts", sources=SOURCES, stop_after=stop)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_what_is_ahead_can_change_and_what_is_done_cannot(tmp_path: Path) -> None:
    later, other = growing(7), growing(7, {"docs": 1, "code": 4})
    train(GROWING, tmp_path / "run", sources=SOURCES, stop_after=4)
    train(later, tmp_path / "run", sources=SOURCES, stop_after=6)
    with pytest.raises(ValueError, match="gives step 5 another learning rate, other rows or"):
        train(GROWING, tmp_path / "run", sources=SOURCES)
    train(other, tmp_path / "run", sources=SOURCES, stop_after=8)
    with pytest.raises(ValueError, match="gives step 7 another"):
        train(later, tmp_path / "run", sources=SOURCES)
    train(other, tmp_path / "run", sources=SOURCES)
    train(other, tmp_path / "whole", sources=SOURCES)
    run, whole = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(torch.equal(whole[name], run[name]) for name in whole)


def test_batches_take_each_row_once_across_stages() -> None:
    numbered = {name: np.full((40, 25), 0, np.uint16) for name in ROWS}
    for offset, rows in enumerate(numbered.values()):
        rows[:] = (np.arange(40) + 100 * offset)[:, None]
    recipe = growing(5, {"docs": 1, "code": 4})
    batches = Batches(recipe, numbered)
    drawn = torch.cat([batches.at(step)[0][:, 0] for step in range(12)]).tolist()
    docs, code = ([t for t in drawn if (t >= 100) == which] for which in (False, True))
    assert len(docs) == recipe.rows_before(12, "docs") == 5 * 3 + 7 * 1 == len(set(docs))
    assert len(code) == recipe.rows_before(12, "code") == 5 * 2 + 7 * 4 == len(set(code))
    assert recipe.rows_before(6, "code") == 5 * 2 + 4 and recipe.rows_before(9, "grammar") == 0


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((0, None), "stages.layers must not shrink and lie between 1 and num_hidden_layers = 3"),
        ((4, None), "stages.layers must not shrink"),
        ((2, 1), "stages.layers must not shrink"),
        ((1, 2), "the last stage trains 2 of 3 layers"),
    ],
)
def test_impossible_depths_are_refused(layers: tuple[int | None, ...], message: str) -> None:
    stages = tuple(Stage(6, ROWS, layers=count) for count in layers)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, num_hidden_layers=3, stages=stages)


def test_depth_of_a_step() -> None:
    assert [GROWING.layers_at(step) for step in (0, 4, 5, 11)] == [1, 1, 3, 3]
    assert SMALL.layers_at(0) == 2
    with pytest.raises(ValueError, match="12 steps: there is no step 12"):
        GROWING.layers_at(12)
