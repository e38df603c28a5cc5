"""What loading refuses: foreign field types, odd paths, quantised files, an untied head."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import slmlab
from slmlab.kv import ContiguousCache
from slmlab.models import Decoder, ModelConfig, model_directory, save_decoder
from slmlab.models.loading import EMBEDDED
from tests.models.layouts import assert_same_logits, saved
from tests.models.test_loading import edit_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    saved("smollm2", tmp_path)
    return tmp_path


def edit_tensors(folder: Path, **changes: torch.Tensor) -> None:
    file = folder / "model.safetensors"
    save_file({**load_file(file), **changes}, file, metadata={"format": "pt"})


def test_tied_head_of_its_own_is_refused(folder: Path) -> None:
    table = load_file(folder / "model.safetensors")["model.embed_tokens.weight"]
    wanted = Decoder.from_pretrained(folder)(torch.arange(9)[None])
    edit_tensors(folder, **{"lm_head.weight": table.clone()})
    assert_same_logits(Decoder.from_pretrained(folder)(torch.arange(9)[None]), wanted)
    other = table.clone()
    other[3, 2] += 1
    for head in (other, table[:5].clone()):
        edit_tensors(folder, **{"lm_head.weight": head})
        with pytest.raises(ValueError, match="set tie_word_embeddings to false"):
            Decoder.from_pretrained(folder)
    edit_tensors(folder, **{"lm_head.weight": other})
    edit_config(folder, tie_word_embeddings=False)
    assert torch.equal(Decoder.from_pretrained(folder).lm_head.weight, other)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn])
def test_quantised_tensors_are_refused(folder: Path, dtype: torch.dtype) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    table = load_file(folder / "model.safetensors")[name]
    edit_tensors(folder, **{name: table.to(dtype)})
    with pytest.raises(ValueError, match=rf"tensor {name} holds {dtype}, so .* already quantised"):
        Decoder.from_pretrained(folder)


def test_quantization_config_is_refused(folder: Path) -> None:
    edit_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ValueError, match=r"quantization_config says .*AutoModelForCausalLM"):
        Decoder.from_pretrained(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"num_attention_heads": "six"},
        {"num_attention_heads": 0},
        {"num_key_value_heads": 0},
        {"hidden_size": True},
        {"rms_norm_eps": "small"},
        {"rope_parameters": "linear"},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4}},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 0}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 0}},
        {"rope_parameters": "REMOVE", "rope_theta": 0},
        {"eos_token_id": "</s>"},
        {"max_position_embeddings": None},
        {"tie_word_embeddings": "no"},
        {"num_hidden_layers": 10**30},
    ],
)
def test_wrong_fields_end_in_one_sentence(folder: Path, values: dict[str, object]) -> None:
    edit_config(folder, **values)
    with pytest.raises(ValueError) as caught:
        Decoder.from_pretrained(folder)
    assert type(caught.value) is ValueError
    message = str(caught.value)
    assert message.startswith(f"{folder / 'config.json'}: ") and "\n" not in message
    assert caught.value.__suppress_context__


def test_deeply_nested_config(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        Decoder.from_pretrained(folder)


@pytest.mark.parametrize(
    "content",
    [
        b'{"weight_map": {}}',
        b'{"weight_map": {"a": 3}}',
        b'{"weight_map": ["a"]}',
        b"[]",
        b"null",
        b"{",
        b'{"weight_map": "\xff"}',
    ],
)
def test_damaged_index(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"index\.json has no readable weight_map: fetch it"):
        Decoder.from_pretrained(folder)


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for place, message in (
        ("~nobody-of-this-name/model", "cannot be followed"),
        ("a" * 5000, "cannot be followed"),
        (loop, "a link that leads nowhere"),
        ("model\0", "no model 'model"),
    ):
        with pytest.raises(ValueError, match=message):
            model_directory(place)


def test_an_embedded_name_may_be_a_path() -> None:
    assert model_directory(Path("tiny")) == model_directory("tiny") == EMBEDDED / "tiny"


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"dtype": "float16"}, TypeError, r"dtype must be a torch\.dtype such as"),
        ({"dtype": torch.int8}, ValueError, r"dtype=torch\.int8 is not one"),
        ({"device": "nope"}, ValueError, "device='nope' cannot be used here .*use 'cpu'"),
        ({"device": 0}, TypeError, "device must be a str or a torch.device"),
        ({"device": "cuda:99"}, ValueError, "device='cuda:99' cannot be used here"),
    ],
)
def test_dtype_and_device(
    folder: Path, arguments: dict[str, object], kind: type[Exception], message: str
) -> None:
    for load in (Decoder.from_pretrained, slmlab.load):
        with pytest.raises(kind, match=message):
            load(folder, **arguments)  # type: ignore[arg-type]


def test_saving_checks_the_dtype(folder: Path, tmp_path: Path) -> None:
    model = Decoder.from_pretrained(folder)
    before = json.loads((folder / "config.json").read_text())
    with pytest.raises(TypeError, match=r"dtype must be a torch\.dtype"):
        save_decoder(model, folder, "float16")  # type: ignore[arg-type]
    assert json.loads((folder / "config.json").read_text()) == before


def test_forward_names_what_has_the_wrong_type() -> None:
    config = ModelConfig("llama", 17, 12, 16, 2, 4, 2, 6, 64)
    decoder = Decoder(config)
    ids = torch.tensor([[1, 2, 3, 4]])
    with pytest.raises(TypeError, match="positions must be an int64 tensor, not list"):
        decoder(ids, positions=[0, 1, 2, 3])
    with pytest.raises(TypeError, match=r"positions must be an int64 tensor, not torch\.float32"):
        decoder(ids, positions=torch.zeros(4))
    with pytest.raises(TypeError, match="attention_mask must be a tensor, not list"):
        decoder(ids, attention_mask=[1, 1, 1, 1])
    with pytest.raises(TypeError, match="cache must have append and length"):
        decoder(ids, {})
    cache = ContiguousCache(config, max_length=4)
    with pytest.raises(TypeError, match="k must be a tensor"):
        cache.append(0, [1], [1])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"this cache takes layers 0 to 1"):
        cache.append(0, torch.zeros(3), torch.zeros(3))
