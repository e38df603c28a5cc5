"""The race of quantised decoders runs, and its last line has what the issue asks for."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks import quant_decode_race
from benchmarks._engines import Slmlab
from benchmarks._gguf import interleave_pairs, write_gguf
from benchmarks._llama_cpp import missing
from benchmarks._race import Plan
from slmlab.models import model_directory
from slmlab.models.loading import read_config
from slmlab.quant import QuantizedLinear, quantize_tensor

RIVALS = {"slmlab_over_transformers_bf16", "slmlab_over_llama_cpp"}
TINY = model_directory("tiny")


def test_a_short_race(capsys: pytest.CaptureFixture[str]) -> None:
    quant_decode_race.main(["--short"])
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    with_llama_cpp = missing() is None
    assert measured["threads"] == 1 and measured["read_gb_s"] > 0
    assert (measured["llama_cpp"] is not None) == with_llama_cpp
    assert bool(measured["llama_cpp_left_out"]) != with_llama_cpp
    assert measured["aims"] == []  # they are set for the full size
    for scheme in ("int8", "int4-g32"):
        heads = measured["schemes"][scheme]
        assert [heads[key]["head_scheme"] for key in ("head_float16", "head_same")] == [
            None,
            scheme,
        ]
        for result in heads.values():
            assert set(result["decode"]) == RIVALS
            for name, ratio in result["decode"].items():
                if name == "slmlab_over_llama_cpp" and not with_llama_cpp:
                    assert ratio is None
                else:
                    assert 0 < ratio["low"] <= ratio["ratio"] <= ratio["high"]
                    assert ratio["n"] == measured["plan"]["decode_repeats"]
            assert 0 < result["kernel_difference"] <= quant_decode_race.LARGEST_DIFFERENCE
    rows = measured["engines"]
    theirs = {"llama_cpp Q8_0", "llama_cpp Q4_0"} if with_llama_cpp else set()
    ours = {f"slmlab {s}, head {h}" for s in ("int8", "int4-g32") for h in ("float16", s)}
    assert set(rows) == {"transformers bf16"} | theirs | ours
    for row in rows.values():
        assert "fraction_of_bandwidth_ceiling" in row and "prefill_tokens_per_second" not in row
    ours_cpu = rows["slmlab int4-g32, head int4-g32"]["cpu_ms_per_token"]
    theirs_cpu = rows["transformers bf16"]["cpu_ms_per_token"]
    ratio = quant_decode_race.cpu_ratio(
        rows, "int4-g32", "int4-g32", "slmlab_over_transformers_bf16"
    )
    assert ratio == (round(theirs_cpu / ours_cpu, 2) if theirs_cpu and ours_cpu else None)
    of = {name: row["bytes_per_token"] for name, row in rows.items()}
    read = [
        of["slmlab int4-g32, head int4-g32"],
        of["slmlab int4-g32, head float16"],
        of["slmlab int8, head int8"],
        of["slmlab int8, head float16"],
        of["transformers bf16"],
    ]
    assert read == sorted(set(read))
    if with_llama_cpp:
        assert of["llama_cpp Q4_0"] == read[0]  # 32 codes of 4 bits and one fp16 scale, both


def test_without_llama_cpp_the_rest_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan("tiny", "trained", new_tokens=2, decode_repeats=1, prefill_repeats=0)
    monkeypatch.setattr(quant_decode_race, "FULL", plan)  # so that it has aims
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    measured = quant_decode_race.measure(plan, roof_seconds=0.2)
    assert measured["llama_cpp"] is None and "xllamacpp" in measured["llama_cpp_left_out"]
    for heads in measured["schemes"].values():
        for result in heads.values():
            assert result["decode"]["slmlab_over_llama_cpp"] is None
            assert result["decode"]["slmlab_over_transformers_bf16"]["ratio"] > 0
    assert not any(name.startswith("llama_cpp") for name in measured["engines"])
    aims = [(aim["decode"], aim["head_scheme"], aim["wanted"]) for aim in measured["aims"]]
    assert aims == [
        ("slmlab_over_transformers_bf16", None, 2.0),
        ("slmlab_over_transformers_bf16", "int4-g32", 2.0),
        ("slmlab_over_llama_cpp", None, 0.7),
        ("slmlab_over_llama_cpp", "int4-g32", 0.7),
    ]
    for aim in measured["aims"]:
        assert (aim["measured"] is None) == ("llama_cpp" in aim["decode"])
        if aim["measured"] is None:
            assert aim["measured_cpu"] is None


def test_a_kernel_that_is_off_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Slmlab("tiny", torch.float16, "int4-g32", "int4-g32")
    heads = [m for m in engine.model.modules() if isinstance(m, QuantizedLinear)]
    assert heads[-1].scheme.name == "int4-g32"
    whole = QuantizedLinear.forward

    def wrong(self: QuantizedLinear, x: torch.Tensor) -> torch.Tensor:
        return whole(self, x) * (1 if self.exact else 1.2)

    monkeypatch.setattr(QuantizedLinear, "forward", wrong)
    with pytest.raises(ValueError, match="kernels of int4-g32 change logits"):
        quant_decode_race.kernel_difference(engine, list(range(8, 20)))


@pytest.mark.parametrize("quantization", ["Q8_0", "Q4_0"])
def test_the_file_of_llama_cpp_is_quantised_as_stated(tmp_path: Path, quantization: str) -> None:
    gguf = pytest.importorskip("gguf", reason="gguf comes with the llama-cpp extra")
    write_gguf(TINY, tmp_path / "q.gguf", torch.float16, quantization=quantization)
    config, kind = read_config(TINY), gguf.GGMLQuantizationType[quantization]
    written = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "q.gguf").tensors}
    kinds = {tensor.name: tensor.tensor_type for tensor in written.values()}
    assert {kinds[name] for name in kinds if "norm" in name} == {gguf.GGMLQuantizationType.F32}
    assert {kinds[name] for name in kinds if "norm" not in name} == {kind}
    checkpoint = load_file(TINY / "model.safetensors")
    weights = {
        "blk.0.ffn_down.weight": checkpoint["model.layers.0.mlp.down_proj.weight"].float(),
        "blk.1.attn_q.weight": torch.from_numpy(
            interleave_pairs(
                checkpoint["model.layers.1.self_attn.q_proj.weight"].float().numpy(),
                config.num_attention_heads,
            )
        ),
    }
    for name, weight in weights.items():
        found = torch.from_numpy(np.array(gguf.dequantize(written[name].data, kind)))
        scales = quantize_tensor(
            weight, "int8-g32" if quantization == "Q8_0" else "int4-g32"
        ).scales
        # Half a step, a whole one at the short end of Q4_0's lopsided range (8 to 7 steps), and
        # the rounding of the scale.
        steps = scales.float().repeat_interleave(32, 1)
        assert ((found - weight).abs() <= (0.6 if quantization == "Q8_0" else 1.01) * steps).all()


def test_another_quantization_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="gguf comes with the llama-cpp extra")
    with pytest.raises(ValueError, match="quantization must be 'Q8_0', 'Q4_0' or None"):
        write_gguf(TINY, tmp_path / "q.gguf", torch.float16, quantization="Q4_K")
