"""From files to a Decoder and back: safetensors and JSON only, never a pickle."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from slmlab.models.config import SUPPORTED_MODEL_TYPES, ModelConfig
from slmlab.models.decoder import Decoder
from slmlab.models.layout import from_hf_names, hf_shapes, to_hf_names
from slmlab.models.placement import check_device, check_dtype
from slmlab.models.projection import Projection
from slmlab.models.weights import read_tensors, weight_files

EMBEDDED = Path(__file__).parent / "embedded"
EMBEDDED_NAMES = ("tiny", "tiny-draft")
_HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


def model_directory(dir_or_name: str | Path) -> Path:
    """The local directory of an embedded model, a directory, or a hub id (downloaded once).

    Raises:
        ValueError: nothing of that name; the message lists what is accepted.
    """
    if not isinstance(dir_or_name, str | Path):
        raise TypeError(f"dir_or_name must be a str or a Path, not {type(dir_or_name).__name__}")
    name = str(dir_or_name)
    if name in EMBEDDED_NAMES:
        return EMBEDDED / name
    try:
        path = Path(dir_or_name).expanduser()
        if path.is_dir():
            return path
        lies_there = os.path.lexists(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"model path {name!r} cannot be followed ({error}): write it out in full"
        ) from None
    if path.is_file():
        raise ValueError(f"{path} is a file: pass the directory that holds config.json")
    if lies_there:
        raise ValueError(
            f"{path} is no directory, or a link that leads nowhere: pass the directory that holds "
            "config.json"
        )
    if _HUB_ID.match(name):
        return _download(name)
    raise ValueError(
        f"no model {name!r}: use one of {', '.join(EMBEDDED_NAMES)}, an existing "
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
    except OSError as error:
        raise ValueError(f"{file} cannot be read ({error.strerror}): mend its rights") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON ({error}): fetch it again") from None
    model_type = raw.get("model_type") if isinstance(raw, dict) else None
    if model_type not in SUPPORTED_MODEL_TYPES:
        raise ValueError(
            f"{file}: model_type {model_type!r} has no Decoder layout here (supported: "
            f"{', '.join(SUPPORTED_MODEL_TYPES)}); load it with transformers instead"
        )
    if raw.get("quantization_config") is not None:
        raise ValueError(
            f"{file}: quantization_config says that the weights are already quantised: load it "
            "with transformers' AutoModelForCausalLM, or fetch the float version"
        )
    # A name it does not set would be filled with a 7B default: sizes must be stated.
    for field in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"):
        if not isinstance(raw.get(field), int):
            raise ValueError(f"{file}: field {field} is missing or not an integer")
    try:
        # The config is data: code that a model folder brings along is never run, nor asked about.
        theirs = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    except Exception as error:  # transformers checks fields with exceptions of many kinds
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{file}: transformers refuses a field ({type(error).__name__}: {reason})"
        ) from None
    try:
        return ModelConfig.from_hf(theirs)
    except (ValueError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{file}: {error}") from None


def load_decoder(
    dir_or_name: str | Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Decoder:
    """See :meth:`Decoder.from_pretrained`."""
    check_dtype(dtype)
    device = check_device(device)
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
    for module in decoder.modules():
        if isinstance(module, Projection):
            module.lay_out()
    decoder.reset_rotation(device)
    return decoder.eval().requires_grad_(False)


def save_decoder(decoder: Decoder, directory: str | Path, dtype: torch.dtype) -> None:
    """Write config.json and model.safetensors in Hugging Face layout, each file whole or not at
    all: a crash leaves the old files in place."""
    from slmlab.models.layout import hf_config_dict

    check_dtype(dtype)
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
