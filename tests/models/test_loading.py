"""Bad files: one clear sentence that names the file and the mend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from huggingface_hub.constants import HF_HUB_CACHE
from safetensors.torch import load_file, save_file

import slmlab
from slmlab.models import Decoder, model_directory
from tests.models.layouts import assert_same_logits, random_model, saved


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    saved("llama", tmp_path)
    return tmp_path


def edit_config(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config.update(values)
    file.write_text(json.dumps({k: v for k, v in config.items() if v != "REMOVE"}))


def test_sharded_checkpoint(tmp_path: Path) -> None:
    theirs = saved("qwen3", tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    ids = torch.arange(12)[None]
    assert_same_logits(Decoder.from_pretrained(tmp_path)(ids), theirs(ids).logits)


def test_missing_shard(tmp_path: Path) -> None:
    saved("llama", tmp_path, max_shard_size="30KB")
    sorted(tmp_path.glob("model-*.safetensors"))[1].unlink()
    with pytest.raises(ValueError, match=r"index.json names model-00002-of-.*, which is not in"):
        Decoder.from_pretrained(tmp_path)


def test_old_rope_fields_are_read(tmp_path: Path) -> None:
    theirs = saved("llama3-rope", tmp_path)
    rope = dict(theirs.config.rope_parameters)
    theta = rope.pop("rope_theta")
    edit_config(tmp_path, rope_parameters="REMOVE", rope_theta=theta, rope_scaling=rope)
    ids = torch.arange(90)[None]
    assert_same_logits(Decoder.from_pretrained(tmp_path)(ids), theirs(ids).logits)


@pytest.mark.parametrize("keep", [0, 7, 100, 20_000])
def test_truncated_safetensors(folder: Path, keep: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"model\.safetensors cannot be read .*fetch it again"):
        Decoder.from_pretrained(folder)


def test_missing_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no model\.safetensors"):
        Decoder.from_pretrained(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickle_is_refused_unopened(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(ValueError, match=f"holds only {name}, a pickle"):
        Decoder.from_pretrained(folder)


def test_a_file_instead_of_a_folder(folder: Path) -> None:
    with pytest.raises(ValueError, match="is a file: pass the directory"):
        Decoder.from_pretrained(folder / "model.safetensors")


def test_unknown_architecture(folder: Path) -> None:
    edit_config(folder, model_type="gpt_neox")
    with pytest.raises(ValueError, match=r"config\.json: model_type 'gpt_neox' .*supported: llama"):
        Decoder.from_pretrained(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden_size": 96}, "tensor .* has shape .* config.json asks for"),
        ({"num_hidden_layers": 4}, "9 tensors are missing, the first is model.layers.3"),
        ({"num_hidden_layers": 2}, "tensor model.layers.2.* is not part of this architecture"),
        ({"num_key_value_heads": 4}, "num_key_value_heads=4 must divide"),
        ({"vocab_size": "REMOVE"}, "field vocab_size is missing"),
        ({"vocab_size": "many"}, "field vocab_size is missing or not an integer"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not supported"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}},
            "rope_type 'yarn' is not supported",
        ),
    ],
)
def test_config_that_disagrees(folder: Path, values: dict[str, object], message: str) -> None:
    edit_config(folder, **values)
    with pytest.raises(ValueError, match=message) as caught:
        Decoder.from_pretrained(folder)
    assert str(folder) in str(caught.value)


def test_config_that_is_not_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not valid JSON"):
        Decoder.from_pretrained(folder)


def test_config_missing(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"has no config\.json"):
        Decoder.from_pretrained(folder)


def test_adapter_checkpoint(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["base_model.lora_A.weight"] = torch.zeros(2, 2)
    save_file(tensors, file)
    with pytest.raises(ValueError, match="an adapter or an already quantised checkpoint"):
        Decoder.from_pretrained(folder)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="no model 'huge': use one of tiny, tiny-draft"):
        model_directory("huge")
    with pytest.raises(TypeError, match="dir_or_name must be a str or a Path"):
        model_directory(3)  # type: ignore[arg-type]


def test_hub_id_from_a_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub id resolves through huggingface_hub's own cache layout, without network."""
    snapshot = tmp_path / "models--someone--small" / "snapshots" / ("a" * 40)
    theirs = saved("smollm2", snapshot)
    references = tmp_path / "models--someone--small" / "refs"
    references.mkdir()
    (references / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert str(tmp_path) != HF_HUB_CACHE
    ids = torch.arange(9)[None]
    assert_same_logits(Decoder.from_pretrained("someone/small")(ids), theirs(ids).logits)


def test_hub_id_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="could not fetch 'someone/absent' from the hub"):
        Decoder.from_pretrained("someone/absent")


def test_load_without_tokenizer(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"has no tokenizer\.json"):
        slmlab.load(folder)


def test_bad_inputs(folder: Path) -> None:
    model = Decoder.from_pretrained(folder)
    with pytest.raises(TypeError, match="input_ids must be an int64 tensor"):
        model(torch.zeros(1, 3))
    with pytest.raises(TypeError, match="not list"):
        model([[1, 2]])
    with pytest.raises(ValueError, match="at least one token"):
        model(torch.zeros(1, 0, dtype=torch.int64))
    with pytest.raises(ValueError, match="token id 97, outside the vocabulary of 97"):
        model(torch.tensor([[3, 97]]))
    with pytest.raises(ValueError, match="token id -1, outside"):
        model(torch.tensor([[3, -1]]))
    with pytest.raises(ValueError, match=r"attention_mask must cover .* shape \(1, 2\)"):
        model(torch.tensor([[3, 4]]), attention_mask=torch.ones(1, 3))
    with pytest.raises(ValueError, match="positions must have shape"):
        model(torch.tensor([[3, 4]]), positions=torch.arange(3))


def test_a_crash_while_saving_keeps_the_old_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slmlab.models import save_decoder

    model = Decoder.from_pretrained(folder)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def full_disk(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("slmlab.models.loading.save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_decoder(model, folder, torch.float16)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_random_models_differ_by_seed() -> None:
    first, second = random_model("llama", 0), random_model("llama", 1)
    assert not torch.equal(first.lm_head.weight, second.lm_head.weight)
