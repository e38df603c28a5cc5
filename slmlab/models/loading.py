"""From files to a Decoder and back: safetensors and JSON only, never a pickle."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from slmlab.models.config import SUPPORTED_MODEL_TYPES, ModelConfig
from slmlab.models.decoder import Decoder
from slmlab.models.layout import from_hf_names, hf_shapes, to_hf_names

EMBEDDED = Path(__file__).parent / "embedded"
EMBEDDED_NAMES = ("tiny", "tiny-draft")
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def model_directory(dir_or_name: str | Path) -> Path:
    """The local directory of an embedded model, a directory, or a hub id (downloaded once).

    Raises:
        ValueError: nothing of that name; the message lists what is accepted.
    """
    if not isinstance(dir_or_name, str | Path):
        raise TypeError(f"dir_or_name must be a str or a Path, not {type(dir_or_name).__name__}")
    if dir_or_name in EMBEDDED_NAMES:
        return EMBEDDED / str(dir_or_name)
    path = Path(dir_or_name).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise ValueError(f"{path} is a file: pass the directory that holds config.json")
    if _HUB_ID.match(str(dir_or_name)):
        return _download(str(dir_or_name))
    raise ValueError(
        f"no model {str(dir_or_name)!r}: use one of {', '.join(EMBEDDED_NAMES)}, an existing "
        "directory in Hugging Face layout, or a hub id such as owner/name"
    )


def _download(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
    except Exception as error:
        raise ValueError(
            f"could not fetch {hub_id!r} from the hub ({type(error).__name__}): check the name "
            "and the network, or pass a local directory"
        ) from error


def read_config(directory: Path) -> ModelConfig:
    """The config of a model directory; errors name the file and the field."""
    from transformers import AutoConfig

    file = directory / "config.json"
    if not file.is_file():
        raise ValueError(f"{directory} has no config.json: it is not a Hugging Face model folder")
    try:
        raw: Any = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not valid JSON ({error}): fetch it again") from None
    model_type = raw.get("model_type") if isinstance(raw, dict) else None
    if model_type not in SUPPORTED_MODEL_TYPES:
        raise ValueError(
            f"{file}: model_type {model_type!r} has no Decoder layout here (supported: "
            f"{', '.join(SUPPORTED_MODEL_TYPES)}); load it with transformers instead"
        )
    # A name it does not set would be filled with a 7B default: sizes must be stated.
    for field in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"):
        if not isinstance(raw.get(field), int):
            raise ValueError(f"{file}: field {field} is missing or not an integer")
    try:
        return ModelConfig.from_hf(AutoConfig.from_pretrained(directory))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: {error}") from None


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model directory, single or sharded.

    Raises:
        ValueError: none there, only a pickle, or an index that names a missing shard.
    """
    single = directory / "model.safetensors"
    index = directory / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        try:
            names = sorted(
                set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            )
        except (json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{index} has no readable weight_map: fetch it again") from error
        files = [directory / Path(name).name for name in names]
        for file in files:
            if not file.is_file():
                raise ValueError(f"{index.name} names {file.name}, which is not in {directory}")
        return files
    pickles = sorted(p.name for pattern in _PICKLES for p in directory.glob(pattern))
    if pickles:
        raise ValueError(
            f"{directory} holds only {pickles[0]}, a pickle, which can run code when opened; "
            "ask for the safetensors version of this model"
        )
    raise ValueError(f"{directory} has no model.safetensors and no model.safetensors.index.json")


def read_tensors(files: list[Path], shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors by Hugging Face name, each checked against the shape the config asks for."""
    tensors: dict[str, Tensor] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118 (safe_open is no mapping)
                    if name.endswith("rotary_emb.inv_freq"):
                        continue
                    if name not in shapes:
                        # A tied checkpoint may repeat its head; the embedding is the one in use.
                        if name == "lm_head.weight":
                            continue
                        raise ValueError(
                            f"{file}: tensor {name} is not part of this architecture "
                            "(an adapter or an already quantised checkpoint?)"
                        )
                    tensor = handle.get_tensor(name)
                    if tuple(tensor.shape) != shapes[name]:
                        raise ValueError(
                            f"{file}: tensor {name} has shape {tuple(tensor.shape)}, config.json "
                            f"asks for {shapes[name]}: the two files belong to different models"
                        )
                    tensors[name] = tensor
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{file} cannot be read ({error}): it is truncated or not safetensors; "
                "fetch it again"
            ) from None
    missing = sorted(set(shapes) - set(tensors))
    if missing:
        raise ValueError(
            f"{files[0].parent}: {len(missing)} tensors are missing, the first is {missing[0]}"
        )
    return tensors


def load_decoder(
    dir_or_name: str | Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Decoder:
    """See :meth:`Decoder.from_pretrained`."""
    directory = model_directory(dir_or_name)
    config = read_config(directory)
    tensors = read_tensors(weight_files(directory), hf_shapes(config))
    # Built without memory first: random initial weights would be thrown away at once.
    with torch.device("meta"):
        decoder = Decoder(config)
    cast = {name: t.to(device=device, dtype=dtype) for name, t in tensors.items()}
    decoder.load_state_dict(from_hf_names(cast, config), assign=True)
    if config.tie_word_embeddings:
        decoder.lm_head.weight = decoder.embed_tokens.weight
    decoder.reset_rotation(device)
    return decoder.eval().requires_grad_(False)


def save_decoder(decoder: Decoder, directory: str | Path, dtype: torch.dtype) -> None:
    """Write config.json and model.safetensors in Hugging Face layout, each file whole or not at
    all: a crash leaves the old files in place."""
    from slmlab.models.layout import hf_config_dict

    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    tensors = to_hf_names(decoder.state_dict(), decoder.config)
    cast = {name: t.detach().to("cpu", dtype).contiguous() for name, t in tensors.items()}
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        weights = Path(scratch) / "model.safetensors"
        save_file(cast, weights, metadata={"format": "pt"})
        weights.chmod(0o644)  # safetensors writes files that only their owner may read
        config = Path(scratch) / "config.json"
        values = hf_config_dict(decoder.config, str(dtype).removeprefix("torch."))
        config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        os.replace(config, target / "config.json")
        os.replace(weights, target / "model.safetensors")
