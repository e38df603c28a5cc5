"""Quantise the linear layers of a model, and count what it then takes."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, TypeVar

from torch import Tensor, nn

from slmlab.quant.grid import quantising
from slmlab.quant.linear import QuantizedLinear

METHODS = ("rtn", "gptq", "awq", "smoothquant")
# Where the forward of a layer that computes as nn.Linear is written. A subclass with a forward of
# its own (a router, a mask) uses its weight in other ways, and a QuantizedLinear would not.
_LINEAR_FORWARDS = ("torch.nn.modules.linear", "slmlab.models.projection")
Model = TypeVar("Model", bound=nn.Module)


def quantize_model(
    model: Model,
    scheme: str | Mapping[str, str],
    method: str = "rtn",
    calibration: Any = None,
    *,
    head_scheme: str | None = None,
) -> Model:
    """A copy of ``model`` whose linear layers are quantised; ``model`` itself is left as it is.

    The copy shares no memory with the model. With "rtn" float weights that become codes are never
    copied, so the peak is the model and the result; the other methods copy the model first.
    Embeddings, norms and biases keep their dtype. So does the head, unless asked for: a head that
    is tied to the embedding stays tied (and counts once); with ``head_scheme`` it gets codes of
    its own beside the embedding (and both count). Hooks of the replaced layers are not carried
    over. `save_quantized` stores the result; ``save_pretrained`` of transformers cannot: its
    ``from_pretrained`` would fill the layers with random weights.

    Args:
        model: a Decoder, a transformers model, any module with ``nn.Linear`` layers.
        scheme: one for every linear layer but the head, such as "int4-g32"; or a plan
            {layer name: scheme}, as `allocate_bits` returns it: other layers stay float.
        method: "rtn" (round to nearest), "gptq", "awq" or "smoothquant".
        calibration: token ids (sequences, tokens) that the last three need; never those that the
            model is evaluated on.
        head_scheme: of the head.

    Raises:
        ValueError: a model that is quantised already or has no linear layers, an unknown scheme,
            method or layer, weights that are not finite, a method without calibration.
        TypeError: no nn.Module, no scheme.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown; use one of {', '.join(METHODS)}")
    plan = make_plan(model, scheme, head_scheme)
    if method == "rtn":
        if calibration is not None:
            raise ValueError("calibration is of no use to method 'rtn': leave it out")
        return _copy_quantised(model, plan)
    if calibration is None:
        raise ValueError(
            f"method {method!r} needs calibration: token ids (sequences, tokens) of text that you "
            "do not evaluate on"
        )
    quantised = copy.deepcopy(model)
    import_module(f"slmlab.quant.{method}").apply(quantised, plan, calibration)
    return quantised


def linear_layers(model: nn.Module, *, heads: bool = False) -> dict[str, nn.Linear]:
    """The float linear layers that `quantize_model` quantises, by name; with ``heads`` those that
    give the logits too.

    Left out are layers of ``nn.MultiheadAttention``, whose owner reads the float weight itself,
    and subclasses with a forward of their own.

    Raises:
        ValueError: the model is quantised already (by us or by another library).
        TypeError: no nn.Module.
    """
    check_module(model)
    found: dict[str, nn.Linear] = {}
    left_out = () if heads else head_layers(model)
    for name, module in model.named_modules():
        if isinstance(module, QuantizedLinear):
            raise ValueError(
                f"model is quantised already: layer {name!r} holds {module.scheme.name}; quantise "
                "the float model again instead"
            )
        if isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear):
            continue
        if isinstance(module, nn.Linear):
            if not module.weight.is_floating_point():
                raise ValueError(
                    f"model is quantised already: the weight of layer {name!r} is "
                    f"{module.weight.dtype}; load the float model"
                )
            as_linear = type(module).forward.__module__ in _LINEAR_FORWARDS
            if as_linear and name not in left_out:
                found[name] = module
    return found


def check_module(model: object) -> None:
    """TypeError for anything but an nn.Module."""
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model must be an nn.Module, not {type(model).__name__}: pass lm.model of a "
            "LanguageModel"
        )


def head_layers(model: nn.Module) -> list[str]:
    """Names of the linear layers that give the logits: tied to an embedding, called "lm_head", or
    what transformers calls the output embeddings."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    ask = getattr(model, "get_output_embeddings", None)
    stated = ask() if callable(ask) else None
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and (id(module.weight) in tables or module is stated or name.split(".")[-1] == "lm_head")
    ]


def make_plan(
    model: nn.Module, scheme: str | Mapping[str, str], head_scheme: str | None = None
) -> dict[str, str]:
    """{layer name: scheme} with every name and scheme checked. Raises as `quantize_model`."""
    layers, heads = linear_layers(model, heads=True), head_layers(model)
    if isinstance(scheme, Mapping):
        plan = dict(scheme)
    elif isinstance(scheme, str):
        plan = {name: scheme for name in layers if name not in heads}
    else:
        raise TypeError(
            f"scheme must be a str such as 'int4-g32' or a dict of them by layer name, not "
            f"{type(scheme).__name__}"
        )
    if head_scheme is not None:
        if not heads:
            raise ValueError("head_scheme is given, but no head was found: name it in a plan")
        if twice := [name for name in heads if plan.get(name, head_scheme) != head_scheme]:
            raise ValueError(
                f"plan gives {twice[0]!r} {plan[twice[0]]!r}, head_scheme gives it {head_scheme!r}: "
                "leave one of them out"
            )
        plan.update({name: head_scheme for name in heads})
    for name, wanted in plan.items():
        if name not in layers:
            raise ValueError(
                f"plan names {name!r}, which is no linear layer of this model; it has "
                f"{', '.join(list(layers)[:4])}, ..."
            )
        quantising(wanted)
    if not plan and isinstance(scheme, Mapping):
        raise ValueError("scheme is an empty plan: name at least one layer")
    if not plan:
        raise ValueError(
            "model has no nn.Linear to quantise: quantise its weights with quantize_tensor"
        )
    return plan


def _copy_quantised(model: Model, plan: Mapping[str, str]) -> Model:
    layers = dict(model.named_modules())
    # deepcopy takes an object found in its memo as already copied: here, as its quantised form.
    memo: dict[int, Any] = {}
    for name, scheme in plan.items():
        linear = layers[name]
        assert isinstance(linear, nn.Linear)
        with in_layer(name):
            memo[id(linear)] = QuantizedLinear.from_linear(linear, scheme)
    return copy.deepcopy(model, memo)


@contextmanager
def in_layer(name: str) -> Iterator[None]:
    """Put the layer's name before the message of a ValueError from inside."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"layer {name}: {error}") from None


def names_of(model: nn.Module, module: nn.Module) -> list[str]:
    """Every name that a part of ``model`` has: shared parts have several."""
    every = model.named_modules(remove_duplicate=False)
    return [name for name, part in every if part is module]


def set_layers(model: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Put each layer in the place of the one of that name, under every name that that one has. It
    is in training mode if that one was."""
    for name, layer in layers.items():
        old = model.get_submodule(name)
        layer.train(old.training)
        for each in names_of(model, old):
            model.set_submodule(each, layer)


def stored_tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What a checkpoint of the model holds, each tensor once; and {other name: name} for those
    that are shared, such as a tied head."""
    tensors: dict[str, Tensor] = {}
    shared: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        address = id(tensor) if tensor.is_meta else tensor.data_ptr()  # all 0 on meta
        place = (tensor.device, address, tensor.shape, tensor.stride(), tensor.dtype)
        if tensor.numel() and place in first:
            shared[name] = first[place]
        else:
            first[place] = name
            tensors[name] = tensor
    return tensors, shared


def model_bytes(model: nn.Module) -> int:
    """Bytes that the model's tensors take when stored: codes, scales, zero points, padding, and
    whatever stayed float in its dtype; a tied head and its embedding count once.

    The codes that a kernel laid out anew in memory are not stored and do not count here: add
    ``kernel_nbytes`` of the layers for what runs at the moment.
    """
    check_module(model)
    return sum(tensor.nbytes for tensor in stored_tensors(model)[0].values())
