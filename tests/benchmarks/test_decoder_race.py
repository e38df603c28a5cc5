"""The race runs, and its last line has what lessons read; the same for the products."""

from __future__ import annotations

import dataclasses
import json
import sys

import pytest
import torch

from benchmarks import decoder_race, products
from benchmarks._llama_cpp import missing
from slmlab.models import ModelConfig

RIVALS = {
    "fp32": {"slmlab_over_transformers", "slmlab_over_llama_cpp"},
    "fp16": {
        "slmlab_over_transformers",
        "slmlab_over_transformers_bf16",
        "slmlab_over_llama_cpp",
    },
    "bf16": {"slmlab_over_transformers"},
}
SMALL = ModelConfig("llama", 96, 32, 64, 1, 2, 1, 16, 64, tie_word_embeddings=True)


def test_a_short_race(capsys: pytest.CaptureFixture[str]) -> None:
    decoder_race.main(["--short"])
    printed = capsys.readouterr().out.splitlines()
    measured = json.loads(printed[-1])
    assert measured["threads"] == 1 and measured["read_gb_s"] > 0
    assert (measured["llama_cpp"] is None) == bool(measured["llama_cpp_left_out"])
    with_llama_cpp = measured["llama_cpp"] is not None
    assert with_llama_cpp == (missing() is None)
    tiny = measured["models"]["tiny"]
    for precision, names in RIVALS.items():
        found = tiny[precision]
        for what in ("decode", "prefill"):
            assert set(found[what]) == names
            for name, ratio in found[what].items():
                if name == "slmlab_over_llama_cpp" and not with_llama_cpp:
                    assert ratio is None
                else:
                    assert 0 < ratio["low"] <= ratio["ratio"] <= ratio["high"]
                    assert ratio["n"] == tiny["plan"][f"{what}_repeats"]
        engines = {"slmlab", "transformers"}
        if with_llama_cpp and precision != "bf16":
            engines.add("llama_cpp")
        assert set(found["engines"]) == engines
        for row in found["engines"].values():
            assert row["prefill_tokens_per_second"] > 0
            assert "fraction_of_bandwidth_ceiling" in row
        bytes_per_value = 4 if precision == "fp32" else 2
        assert found["bytes_per_token"] > bytes_per_value * tiny["parameters"]
    compared = tiny["fp32"]["identity"]["engines"]
    assert compared == ["slmlab", "transformers"] + ["llama_cpp"] * with_llama_cpp
    assert [aim["model"] for aim in measured["aims"]] == ["tiny"]


@pytest.mark.parametrize("package", ["gguf", "xllamacpp"])
def test_without_llama_cpp_it_says_so(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    reason = missing()
    assert reason is not None and package in reason and "\n" not in reason


def test_products_of_a_small_model() -> None:
    with torch.inference_mode():
        measured = products.measure(SMALL, repeats=2)
    assert set(measured) == {way.name for way in products.WAYS}
    for way in products.WAYS:
        result = measured[way.name]
        one, eight = result["rows_1"], result["rows_8"]
        if "left_out" in result:
            assert one is None and eight is None
            continue
        assert one["n"] == 2 and 0 < one["low"] <= one["ratio"] <= one["high"]
        assert (eight is None) == way.only_one_row
    assert "left_out" not in measured["numpy_fp32_columns"]


def test_another_product_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = dataclasses.replace(
        products.BASELINE,
        name="wrong",
        product=lambda x, w: 1.01 * torch.nn.functional.linear(x, w),
    )
    monkeypatch.setattr(products, "WAYS", (wrong,))
    with torch.inference_mode(), pytest.raises(ValueError, match="wrong is off by"):
        products.measure(SMALL, repeats=1)


def test_a_library_that_is_not_here_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(weight: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError("no such kernel\nand a long trace")

    monkeypatch.setattr(
        products, "WAYS", (dataclasses.replace(products.BASELINE, name="a", prepare=absent),)
    )
    found = products.measure(SMALL, repeats=1)
    assert found == {"a": {"left_out": "no such kernel", "rows_1": None, "rows_8": None}}
