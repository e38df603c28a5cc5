"""Quantised models as safetensors: codes and metadata as they are, schemes in the file's header.

The file is called ``quantized.safetensors``, so that a loader of float models does not take it for
one and fill the missing weights with random numbers.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from slmlab.quant.linear import QuantizedLinear
from slmlab.quant.model import (
    check_module,
    linear_layers,
    names_of,
    set_layers,
    stored_tensors,
)
from slmlab.quant.tensor import QuantizedTensor

WEIGHTS = "quantized.safetensors"
_HEADER = "slmlab.quant"
_VERSION = 1


def save_quantized(model: nn.Module, directory: str | Path) -> None:
    """Write ``quantized.safetensors``, and ``config.json`` and ``generation_config.json`` where the
    model is of transformers.

    The header's entry "slmlab.quant" holds JSON: version, {layer: scheme and shape}, and which
    names share a tensor. Each file is written beside its target, then renamed: a crash leaves the
    old one in place.

    Raises:
        ValueError: a model without a QuantizedLinear, or whose layers quantise their inputs too
            (smoothquant); a directory that is a file. TypeError: no nn.Module.
    """
    check_module(model)
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear) and _is_wrapped(model, name):
            raise ValueError(
                f"layer {name!r} is part of a layer that also quantises its input, which a "
                "checkpoint does not describe: save the model that quantize_model gives with "
                "method 'rtn', 'gptq' or 'awq'"
            )
    layers = {
        name: {"scheme": module.scheme.name, "shape": [module.out_features, module.in_features]}
        for name, module in model.named_modules()
        if isinstance(module, QuantizedLinear)
    }
    if not layers:
        raise ValueError("model has no quantised layer: use quantize_model first")
    tensors, shared = stored_tensors(model)
    header = {"version": _VERSION, "layers": layers, "shared": shared}
    target = Path(directory)
    if target.is_file():
        raise ValueError(f"directory {target} is a file: name a folder")
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target) as scratch:
        weights = Path(scratch) / WEIGHTS
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, weights, metadata={"format": "pt", _HEADER: json.dumps(header)})
        weights.chmod(0o644)  # safetensors writes files that only their owner may read
        for attribute in ("config", "generation_config"):
            config: Any = getattr(model, attribute, None)
            if hasattr(config, "to_json_string"):
                written = Path(scratch) / f"{attribute}.json"
                written.write_text(config.to_json_string(use_diff=False), encoding="utf-8")
                os.replace(written, target / written.name)
        os.replace(weights, target / WEIGHTS)


def _is_wrapped(model: nn.Module, name: str) -> bool:
    owner = model.get_submodule(name.rpartition(".")[0])
    return type(owner).__module__.startswith("slmlab.quant.")


def load_quantized(directory: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Read what `save_quantized` wrote.

    Args:
        model: a float model of the same architecture, such as ``Decoder(config)``; its linear
            layers are replaced and its other weights overwritten, and it is returned. None builds
            the transformers model that ``config.json`` describes (no code from the folder runs).

    Returns:
        The model, in evaluation mode, without gradients.

    Raises:
        ValueError: no such file, one that cannot be read, a scheme that disagrees with the shapes
            or dtypes of its tensors, tensors missing or left over or not finite, a model of other
            sizes. ``model`` is then as it was.
    """
    source = Path(directory)
    header, tensors = _read(source / WEIGHTS)
    if model is None:
        model = _from_config(source / "config.json")
    linears, layers = linear_layers(model, heads=True), {}
    for name, entry in header["layers"].items():
        if name not in linears:
            raise ValueError(
                f"{source / WEIGHTS} quantises {name!r}, and the model has no such linear layer: "
                "it is of another architecture"
            )
        try:
            layers[name] = _layer(name, entry, tensors, linears[name])
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise ValueError(f"{source / WEIGHTS}: layer {name}: {error}") from None
    tensors |= {
        name: tensors[first] for name, first in header["shared"].items() if first in tensors
    }
    if misfit := _misfit(model, layers, tensors):
        raise ValueError(f"{source / WEIGHTS} does not fit the model: {misfit}")
    set_layers(model, layers)
    model.load_state_dict(tensors, assign=True)
    _tie(model, header["shared"])
    for module in model.modules():
        lay_out = getattr(module, "lay_out", None)
        if callable(lay_out):  # a Decoder's products order their weights in memory
            lay_out()
    return model.eval().requires_grad_(False)


def _layer(name: str, entry: Any, tensors: dict[str, Tensor], linear: nn.Linear) -> QuantizedLinear:
    """The quantised layer that an entry of the header describes."""
    shape = (linear.out_features, linear.in_features)
    if list(entry["shape"]) != list(shape):
        raise ValueError(f"shape {entry['shape']} is not the model's {shape}")
    prefix = f"{name}."
    parts = {
        key.removeprefix(prefix): tensor
        for key, tensor in tensors.items()
        if key.startswith(prefix) and key != f"{prefix}bias"
    }
    weight = QuantizedTensor.from_stored(parts, shape, entry["scheme"])
    return QuantizedLinear(weight, linear.bias)


def _misfit(
    model: nn.Module, layers: dict[str, QuantizedLinear], tensors: dict[str, Tensor]
) -> str:
    """What keeps the tensors from being those of ``model`` with ``layers`` in it; "" if nothing."""
    wanted = model.state_dict()
    for name, layer in layers.items():
        for each in names_of(model, model.get_submodule(name)):
            del wanted[f"{each}.weight"]
            wanted |= {f"{each}.{part}": tensor for part, tensor in layer.state_dict().items()}
    for name in wanted.keys() ^ tensors.keys():
        return f"{name} is {'missing' if name in wanted else 'left over'}"
    for name, tensor in tensors.items():
        if (old := wanted[name]).shape != tensor.shape:
            return f"{name} has shape {tuple(tensor.shape)}, the model's {tuple(old.shape)}"
        if old.is_floating_point() != tensor.is_floating_point():
            return f"{name} is {tensor.dtype}, the model's {old.dtype}"
        if not tensor.isfinite().all():
            return f"{name} holds NaN or infinity"
    for name, buffer in model.named_buffers():
        if buffer.is_meta and name not in tensors:
            return f"{name} is on the meta device and not in the file: build the model on a CPU"
    return ""


def _tie(model: nn.Module, shared: dict[str, str]) -> None:
    """Make names that shared a tensor when saved share a parameter again."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, first in shared.items():
        if name in parameters and first in parameters:
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, parameters[first])


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if not file.is_file():
        raise ValueError(f"folder {file.parent} has no {WEIGHTS}: write one with save_quantized")
    try:
        with safe_open(file, framework="pt") as handle:
            raw = (handle.metadata() or {}).get(_HEADER)
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{file} cannot be read ({error}): it is truncated") from None
    try:
        header = json.loads(raw) if raw is not None else None
    except (ValueError, RecursionError):
        header = None
    if (
        not isinstance(header, dict)
        or not all(isinstance(header.get(key), dict) for key in ("layers", "shared"))
        or not all(isinstance(first, str) for first in header["shared"].values())
    ):
        raise ValueError(f"{file} has no readable {_HEADER!r} in its header: it is not one of ours")
    if header.get("version") != _VERSION:
        raise ValueError(f"{file} is of version {header.get('version')}, this reads {_VERSION}")
    return header, tensors


def _from_config(file: Path) -> nn.Module:
    if not file.is_file():
        raise ValueError(
            f"{file.parent} has no config.json, so it holds no transformers model: pass "
            "model=Decoder(config)"
        )
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(file.parent, trust_remote_code=False)
        model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        if (file.parent / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(file.parent)
    except Exception as error:  # transformers checks fields with exceptions of many kinds
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{file}: transformers refuses it ({type(error).__name__}: {reason})"
        ) from None
    return model
