"""The tensors of a checkpoint: safetensors only, each one checked against the config."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from slmlab.models.placement import FLOAT_DTYPES

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_EMBEDDING = "model.embed_tokens.weight"
_HEAD = "lm_head.weight"


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model directory, single or sharded.

    Raises:
        ValueError: none there, only a pickle, or an index that cannot be read or names a
            missing shard.
    """
    single = directory / "model.safetensors"
    index = directory / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        files = [directory / Path(name).name for name in _shard_names(index)]
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


def _shard_names(index: Path) -> list[str]:
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError):
        content = None
    shards = content.get("weight_map") if isinstance(content, dict) else None
    names = list(shards.values()) if isinstance(shards, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{index} has no readable weight_map: fetch it again")
    return sorted(set(names))


def read_tensors(files: list[Path], shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Tensors by Hugging Face name, each checked against the shape the config asks for.

    Where ``shapes`` has no head, the config ties it to the embedding. A checkpoint may repeat
    the table as its head; a head of its own would be lost, so it is refused.

    Raises:
        ValueError: a file that cannot be read; a tensor that is missing, unknown, of another
            shape, or no float; a tied head that differs from the embedding.
    """
    tensors: dict[str, Tensor] = {}
    repeated: Tensor | None = None
    for file in files:
        try:
            with safe_open(file, framework="pt") as handle:
                for name in handle.keys():  # noqa: SIM118 (safe_open is no mapping)
                    if name.endswith("rotary_emb.inv_freq"):
                        continue
                    if name not in shapes and name != _HEAD:
                        raise ValueError(
                            f"{file}: tensor {name} is not part of this architecture "
                            "(an adapter or an already quantised checkpoint?)"
                        )
                    tensor = handle.get_tensor(name)
                    _check_float(file, name, tensor)
                    if name not in shapes:
                        repeated = tensor
                        continue
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
    if repeated is not None and not _same(repeated, tensors[_EMBEDDING]):
        raise ValueError(
            f"{files[0].parent}: config.json ties the head to the embedding, but the checkpoint "
            f"holds another {_HEAD}: set tie_word_embeddings to false in config.json"
        )
    return tensors


def _check_float(file: Path, name: str, tensor: Tensor) -> None:
    if tensor.dtype not in FLOAT_DTYPES:
        raise ValueError(
            f"{file}: tensor {name} holds {tensor.dtype}, so the checkpoint is already quantised: "
            "load it with transformers' AutoModelForCausalLM, or fetch the float version"
        )


def _same(first: Tensor, second: Tensor) -> bool:
    common = torch.promote_types(first.dtype, second.dtype)
    return torch.equal(first.to(common), second.to(common))
