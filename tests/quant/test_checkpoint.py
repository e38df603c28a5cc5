from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

from slmlab.models import Decoder
from slmlab.quant import load_quantized, model_bytes, quantize_model, save_quantized
from tests.quant.small_models import STORIES260K, decoder, llama, logits

FILE = "quantized.safetensors"


def rewrite(directory, change) -> None:
    """Let ``change(header, tensors)`` edit the file."""
    with safe_open(directory / FILE, framework="pt") as handle:
        header = json.loads(handle.metadata()["slmlab.quant"])
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    change(header, tensors)
    save_file(tensors, directory / FILE, metadata={"slmlab.quant": json.dumps(header)})


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", ["int8", "int4-g32", "int3-g48-asym", "nf4-g64-dq"])
def test_a_decoder_comes_back(tmp_path, name, tied) -> None:
    model = quantize_model(decoder(tied), name)
    save_quantized(model, tmp_path)
    torch.manual_seed(1)
    loaded = load_quantized(tmp_path, Decoder(model.config))
    assert torch.equal(logits(loaded), logits(model))
    assert isinstance(loaded, Decoder)
    assert (loaded.lm_head.weight is loaded.embed_tokens.weight) == tied
    with safe_open(tmp_path / FILE, framework="pt") as handle:
        written = sum(handle.get_tensor(key).nbytes for key in handle.keys())  # noqa: SIM118
        header = json.loads(handle.metadata()["slmlab.quant"])
    assert written == model_bytes(model) == model_bytes(loaded)
    assert header["layers"]["layers.0.mlp.down_proj"] == {"scheme": name, "shape": [64, 160]}
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("head", [None, "int8"])
def test_a_transformers_model_comes_back_by_itself(tmp_path, head) -> None:
    model: Any = quantize_model(llama(dtype=torch.bfloat16), "nf4-g32", head_scheme=head)
    model.generation_config.max_new_tokens = 7
    save_quantized(model, tmp_path)
    loaded: Any = load_quantized(tmp_path)
    assert loaded.dtype == torch.bfloat16 and not loaded.training
    assert loaded.generation_config.max_new_tokens == 7
    assert torch.equal(logits(loaded), logits(model))
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["config.json", "generation_config.json", FILE]
    with pytest.raises(OSError):  # a loader of float models does not take it for one
        AutoModelForCausalLM.from_pretrained(tmp_path)


def test_a_plan_and_biases_come_back(tmp_path) -> None:
    plain = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 16))
    model = quantize_model(plain, {"0": "int4-g32"})
    save_quantized(model, tmp_path)
    other = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Linear(32, 16))
    x = torch.randn(3, 64)
    assert torch.equal(load_quantized(tmp_path, other)(x), model(x))


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    model = quantize_model(decoder(), "int8")
    save_quantized(model, tmp_path)
    before = (tmp_path / FILE).read_bytes()

    def half_written(tensors, path, metadata) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("slmlab.quant.checkpoint.save_file", half_written)
    with pytest.raises(OSError, match="disk full"):
        save_quantized(quantize_model(decoder(), "int4-g32"), tmp_path)
    assert (tmp_path / FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def scheme_of_other_width(header, tensors) -> None:
    header["layers"]["layers.0.mlp.down_proj"]["scheme"] = "int8-g32"


def scheme_of_other_groups(header, tensors) -> None:
    header["layers"]["layers.0.mlp.down_proj"]["scheme"] = "int4-g16"


def scheme_with_zero_points(header, tensors) -> None:
    header["layers"]["layers.0.mlp.down_proj"]["scheme"] = "int4-g32-asym"


def scheme_unknown(header, tensors) -> None:
    header["layers"]["layers.0.mlp.down_proj"]["scheme"] = "int9"


def shape_of_other_layer(header, tensors) -> None:
    header["layers"]["layers.0.mlp.down_proj"]["shape"] = [160, 64]


def shape_infinite(header, tensors) -> None:
    header["layers"]["layers.0.mlp.down_proj"]["shape"] = [float("inf"), 160]


def shape_in_fractions(header, tensors) -> None:
    header["layers"]["layers.0.mlp.down_proj"]["shape"] = [64.7, 160]


def entry_without_shape(header, tensors) -> None:
    del header["layers"]["layers.0.mlp.down_proj"]["shape"]


def scales_missing(header, tensors) -> None:
    del tensors["layers.0.mlp.down_proj.scales"]


def scales_of_other_dtype(header, tensors) -> None:
    tensors["layers.0.mlp.down_proj.scales"] = tensors["layers.0.mlp.down_proj.scales"].float()


def scales_not_finite(header, tensors) -> None:
    tensors["layers.0.mlp.down_proj.scales"][0, 0] = float("nan")


def scales_negative(header, tensors) -> None:
    tensors["layers.0.mlp.down_proj.scales"].neg_()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (scheme_of_other_width, "int8-g32 stores packed of a weight \\(64, 160\\) as"),
        (scheme_of_other_groups, "int4-g16 stores scales of a weight"),
        (scheme_with_zero_points, "stores packed, scales, zero_points, found packed, scales"),
        (scheme_unknown, "valid forms"),
        (shape_of_other_layer, "shape \\[160, 64\\] is not the model's \\(64, 160\\)"),
        (shape_infinite, "shape \\[inf, 160\\] is not"),
        (shape_in_fractions, "shape \\[64.7, 160\\] is not"),
        (entry_without_shape, "shape"),
        (scales_missing, "found packed"),
        (scales_of_other_dtype, r"found torch\.float32"),
        (scales_not_finite, "scales holds negative numbers, NaN"),
        (scales_negative, "scales holds negative numbers, NaN"),
    ],
)
def test_scheme_and_tensors_that_disagree(tmp_path, damage, message) -> None:
    model = quantize_model(decoder(), "int4-g32")
    save_quantized(model, tmp_path)
    rewrite(tmp_path, damage)
    with pytest.raises(ValueError, match=rf"layer layers\.0\.mlp\.down_proj: .*{message}"):
        load_quantized(tmp_path, Decoder(model.config))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda header, tensors: tensors.pop("norm.weight"), "norm.weight is missing"),
        (lambda header, tensors: tensors.update(more=torch.ones(3)), "more is left over"),
        (
            lambda header, tensors: tensors.update({"norm.weight": torch.ones(3)}),
            r"norm.weight has shape \(3,\), the model's \(64,\)",
        ),
        (
            lambda header, tensors: tensors.update({"norm.weight": torch.ones(64).long()}),
            "norm.weight is torch.int64, the model's torch.float32",
        ),
        (
            lambda header, tensors: tensors["norm.weight"].fill_(float("nan")),
            "norm.weight holds NaN",
        ),
        (
            lambda header, tensors: header["layers"]["layers.1.mlp.down_proj"].update(
                scheme="int9"
            ),
            "layer layers.1.mlp.down_proj: scheme 'int9'",
        ),
        (
            lambda header, tensors: header["shared"].update({"lm_head.weight": []}),
            "no readable 'slmlab.quant'",
        ),
    ],
)
def test_a_file_that_does_not_fit_leaves_the_model_as_it_was(tmp_path, damage, message) -> None:
    model = quantize_model(decoder(), "int4-g32")
    save_quantized(model, tmp_path)
    rewrite(tmp_path, damage)
    other = decoder()
    with pytest.raises(ValueError, match=message):
        load_quantized(tmp_path, other)
    assert torch.equal(logits(other), logits(decoder()))
    save_quantized(model, tmp_path)
    assert torch.equal(logits(load_quantized(tmp_path, other)), logits(model))


def test_layers_with_two_names_come_back(tmp_path) -> None:
    def twice() -> torch.nn.Sequential:
        layer = torch.nn.Linear(64, 64)
        return torch.nn.Sequential(layer, torch.nn.ReLU(), layer)

    model, x = quantize_model(twice(), "int4-g32"), torch.randn(3, 64)
    save_quantized(model, tmp_path)
    loaded: Any = load_quantized(tmp_path, twice())
    assert loaded[0] is loaded[2] and torch.equal(loaded(x), model(x))


def test_a_model_on_the_meta_device(tmp_path) -> None:
    model = quantize_model(decoder(), "int4-g32")
    save_quantized(model, tmp_path)
    with torch.device("meta"):
        empty = Decoder(model.config)
    with pytest.raises(ValueError, match="on the meta device and not in the file"):
        load_quantized(tmp_path, empty)


def test_files_that_are_not_ours(tmp_path) -> None:
    model = quantize_model(decoder(), "int8")
    with pytest.raises(ValueError, match="write one with save_quantized"):
        load_quantized(tmp_path, Decoder(model.config))
    save_quantized(model, tmp_path)
    with pytest.raises(ValueError, match=r"no config\.json"):
        load_quantized(tmp_path)
    with pytest.raises(ValueError, match="another architecture"):
        load_quantized(tmp_path, llama())
    rewrite(tmp_path, lambda header, tensors: tensors.pop("norm.weight"))
    with pytest.raises(ValueError, match=r"does not fit the model(.|\n)*norm\.weight"):
        load_quantized(tmp_path, Decoder(model.config))
    rewrite(tmp_path, lambda header, tensors: header.update(version=2))
    with pytest.raises(ValueError, match="version 2, this reads 1"):
        load_quantized(tmp_path, Decoder(model.config))
    save_file({"a": torch.ones(1)}, tmp_path / FILE)
    with pytest.raises(ValueError, match="not one of ours"):
        load_quantized(tmp_path, Decoder(model.config))
    (tmp_path / FILE).write_bytes(b"short")
    with pytest.raises(ValueError, match="cannot be read"):
        load_quantized(tmp_path, Decoder(model.config))


def test_a_model_that_is_not_quantised(tmp_path) -> None:
    with pytest.raises(ValueError, match="use quantize_model first"):
        save_quantized(decoder(), tmp_path)


def test_a_file_in_place_of_the_folder(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file: name a folder"):
        save_quantized(quantize_model(decoder(), "int8"), tmp_path / "file")


@pytest.mark.skipif(
    not STORIES260K.is_dir(), reason="stories260K is not part of the repository and not present"
)
def test_stories260k(tmp_path) -> None:
    ours = Decoder.from_pretrained(STORIES260K)
    theirs = AutoModelForCausalLM.from_pretrained(STORIES260K).eval()
    quantised, other = quantize_model(ours, "int8-g16"), quantize_model(theirs, "int8-g16")
    # Groups run along the input, so the fused matrices have the codes of their parts.
    assert torch.allclose(logits(quantised), logits(other), atol=1e-3)
    assert (logits(quantised) - logits(ours)).abs().max() < 0.3
    for model, skeleton in ((quantised, Decoder(ours.config)), (other, None)):
        save_quantized(model, tmp_path)
        assert torch.equal(logits(load_quantized(tmp_path, skeleton)), logits(model))
