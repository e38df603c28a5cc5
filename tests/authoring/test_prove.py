"""What `make prove` keeps of a benchmark."""

import json
from pathlib import Path

import pytest

from authoring.prove import find_benchmarks, main


def benchmark(root: Path, name: str, body: str) -> None:
    (root / "benchmarks").mkdir(exist_ok=True)
    (root / "benchmarks" / f"{name}.py").write_text(body)


def test_the_last_line_is_kept_with_its_seed_and_machine(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    body = (
        "import json, os\nprint('a table')\n"
        "print(json.dumps({'seed': os.environ['SLMLAB_SEED'], 'ratio': 1.5}))\n"
    )
    benchmark(tmp_path, "race", body)
    benchmark(tmp_path, "_helper", "raise SystemExit(3)\n")
    assert list(find_benchmarks(tmp_path)) == ["race"]
    assert main([], tmp_path) == 0
    assert "a table" in capfd.readouterr().out
    record = json.loads((tmp_path / "results" / "race.json").read_text())
    assert record["measured"] == {"seed": "0", "ratio": 1.5}
    assert record["seed"] == 0 and record["machine"]["cores"] >= 1
    assert set(record) == {"benchmark", "commit", "machine", "measured", "seed"} | {
        "uncommitted_changes"
    }


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("print('{}')\nprint('done')\n", "must be one JSON object, it is 'done'"),
        ("print([1])\n", "must be one JSON object"),
        ("", "must be one JSON object"),
        ("print('{}')\nraise SystemExit(3)\n", "ended with status 3"),
    ],
)
def test_a_benchmark_without_a_result_fails_and_keeps_the_old_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], body: str, sentence: str
) -> None:
    benchmark(tmp_path, "race", body)
    benchmark(tmp_path, "second", "print('{}')\n")
    (tmp_path / "results").mkdir()
    old = tmp_path / "results" / "race.json"
    old.write_text("old")
    assert main([], tmp_path) == 1
    assert sentence in capfd.readouterr().err
    assert old.read_text() == "old"
    assert (tmp_path / "results" / "second.json").exists(), "the others still run"
