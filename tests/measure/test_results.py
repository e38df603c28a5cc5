"""Results are found, and a file that is none of them is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from authoring.prove import find_benchmarks
from slmlab.measure import load_result

RESULTS = Path(__file__).resolve().parents[2] / "results"


def test_every_committed_result_can_be_loaded() -> None:
    names = {path.stem for path in RESULTS.glob("*.json")}
    assert names and names <= set(find_benchmarks())
    for name in names:
        record = load_result(name)
        assert record is not None
        assert {"commit", "seed", "machine", "measured"} <= set(record)


def test_what_was_never_measured_is_none(tmp_path: Path) -> None:
    assert load_result("decoder_race", tmp_path) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "is not a record"),
        (json.dumps({"benchmark": "other", "measured": {}}), "is not a record"),
        (json.dumps({"benchmark": "race", "measured": []}), "is not a record"),
    ],
)
def test_damage_is_named_with_the_mend(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "race.json").write_text(text)
    with pytest.raises(ValueError, match=rf"race\.json {said}.*authoring\.prove race"):
        load_result("race", tmp_path)
