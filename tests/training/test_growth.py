"""Growing in depth: no output changes, resuming stays exact, and the schedule is kept."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from slmlab.models import Decoder
from slmlab.training.growth import first_layers
from slmlab.training.pretrain import initial_decoder, train
from slmlab.training.recipe import Recipe
from tests.training.test_training import SMALL, SOURCES

GROWING = dataclasses.replace(SMALL, num_hidden_layers=3, initial_layers=1, growth_step=5)


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
        assert any(key.startswith(f"optimizer/{name}/") for key in before) != waited, name
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


def test_growth_can_move_only_while_it_is_ahead(tmp_path: Path) -> None:
    later = dataclasses.replace(GROWING, growth_step=7)
    train(GROWING, tmp_path / "run", sources=SOURCES, stop_after=4)
    train(later, tmp_path / "run", sources=SOURCES, stop_after=6)
    with pytest.raises(ValueError, match="growth_step = 5 gives some of them another"):
        train(GROWING, tmp_path / "run", sources=SOURCES)
    train(later, tmp_path / "run", sources=SOURCES)
    train(later, tmp_path / "whole", sources=SOURCES)
    run, whole = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(torch.equal(whole[name], run[name]) for name in whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial_layers": 3}, "initial_layers must lie between 1 and 2"),
        ({"initial_layers": 0}, "initial_layers must lie between 1 and 2"),
        ({"initial_layers": None}, "growth_step is 5: it needs initial_layers"),
        ({"growth_step": 0}, "growth_step must lie between 1 and 11"),
        ({"growth_step": 12}, "growth_step must lie between 1 and 11"),
    ],
)
def test_impossible_growth_is_refused(change: dict[str, int | None], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(GROWING, **change)  # type: ignore[arg-type]


def test_depth_of_a_step() -> None:
    assert [GROWING.layers_at(step) for step in (0, 4, 5, 11)] == [1, 1, 3, 3]
    plain: Recipe = dataclasses.replace(GROWING, initial_layers=None, growth_step=0)
    assert plain.layers_at(0) == 3
