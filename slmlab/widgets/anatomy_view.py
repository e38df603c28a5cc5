"""What the explorer of lesson 01 shows for a state: a pure function, no widget and no picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slmlab.measure import Prediction, Roofline, devices, predict_decode
from slmlab.widgets.device_memory import DEVICE_MEMORY_BYTES, machine_memory_bytes
from slmlab.widgets.published import published_configs
from slmlab.widgets.units import bytes_text, digits, seconds_text

THIS_MACHINE = "this machine"
LOADED_MODEL = "loaded model"
SCHEMES = ("float32", "float16", "int8", "int4-g32", "nf4-g64", "int3-g32", "int2-g32")
BATCHES = (1, 2, 4, 8, 16, 32, 64)
# Eight stops an octave from 128 to 32,768, all of them round: 4096, 4608, 5120, ...
CONTEXTS = (*(2**k + i * 2**k // 8 for k in range(7, 15) for i in range(8)), 32768)
QUESTION = (
    "In int4-g32 and at batch 1: at which context does reading the cache cost as much as reading "
    "the weights, for SmolLM2-135M and for Llama-3.2-1B, which is nine times larger?"
)
_LARGEST_CONTEXT = 2**30


@dataclass(frozen=True)
class State:
    """One setting of the five controls; context in tokens, batch in sequences."""

    model: str
    scheme: str = "int4-g32"
    context: int = 4096
    batch: int = 1
    device: str = "Raspberry Pi 5"


@dataclass(frozen=True)
class Bench:
    """What can be chosen: shapes by name, devices by name, and their memory where it is known."""

    models: Mapping[str, Any]
    devices: Mapping[str, Any]
    memory_bytes: Mapping[str, int]

    def start(self) -> State:
        """The first state: Llama-3.2-1B in int4, on this machine where it was measured."""
        device = THIS_MACHINE if THIS_MACHINE in self.devices else "Raspberry Pi 5"
        return State("Llama-3.2-1B", device=device)


@dataclass(frozen=True)
class View:
    """What is shown for a state.

    needed_bytes: stored weights and the cache of the whole batch; activations are not counted.
    memory_bytes: of the device, None where unknown. fits: needed <= memory, None where unknown.
    cache_to_weights: cache bytes over weight bytes read in a step. The sentences carry units.
    """

    state: State
    prediction: Prediction
    needed_bytes: int
    memory_bytes: int | None
    fits: bool | None
    cache_to_weights: float
    gflop_s: float
    headline: str
    limit: str
    memory: str
    cache: str
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """All sentences in reading order."""
        return " ".join((self.headline, self.limit, self.memory, self.cache, *self.notes))


def make_bench(model: Any = None, roofline: Roofline | None = None) -> Bench:
    """The published shapes and the table's devices, with the loaded model and this machine first.

    model: a LanguageModel, a Decoder, a transformers model or a config; None leaves it out.
    roofline: of this machine; None leaves it out. Devices without a bandwidth are left out.
    Raises TypeError for a roofline of another type, else as `predict_decode` for the model.
    """
    if roofline is not None and not isinstance(roofline, Roofline):
        raise TypeError(
            f"roofline must be a Roofline, got {type(roofline).__name__}: pass Roofline.measure()"
        )
    models: dict[str, Any] = dict(published_configs())
    if model is not None:
        models = {LOADED_MODEL: config_of(model), **models}
    table: dict[str, Any] = {d.name: d for d in devices() if d.bandwidth_gb_s is not None}
    memory = dict(DEVICE_MEMORY_BYTES)
    if roofline is not None:
        table = {THIS_MACHINE: roofline, **table}
        memory[THIS_MACHINE] = machine_memory_bytes()
    return Bench(models, table, memory)


def config_of(model: Any) -> Any:
    """The config of a LanguageModel, a model, or the config itself.

    Raises as `predict_decode` where the shape cannot be read.
    """
    inner = getattr(model, "model", model)
    config = getattr(inner, "config", None) or getattr(model, "config", None) or model
    predict_decode(config, "float16", (1.0, None))
    return config


def view(bench: Bench, state: State) -> View:
    """What to show for ``state``. Raises ValueError for a name that is not on the bench."""
    for kind, name, known in (
        ("model", state.model, bench.models),
        ("device", state.device, bench.devices),
    ):
        if name not in known:
            raise ValueError(f"{kind} {name!r} is not offered; choose one of {', '.join(known)}")
    config = bench.models[state.model]
    prediction = predict_decode(
        config,
        state.scheme,
        bench.devices[state.device],
        context=state.context,
        batch=state.batch,
    )
    needed = prediction.stored_bytes + prediction.kv_bytes
    memory = bench.memory_bytes.get(state.device)
    return View(
        state=state,
        prediction=prediction,
        needed_bytes=needed,
        memory_bytes=memory,
        fits=None if memory is None else needed <= memory,
        cache_to_weights=prediction.kv_bytes / prediction.weight_bytes,
        gflop_s=prediction.flops / prediction.step_seconds / 1e9,
        headline=_headline(prediction),
        limit=_limit(prediction),
        memory=_memory(prediction, needed, memory, state.device),
        cache=_cache(prediction),
        notes=_notes(config, state),
    )


def cache_equals_weights_at(config: Any, scheme: str = "int4-g32", batch: int = 1) -> int | None:
    """Smallest context, in tokens, at which a step reads at least as much cache as weights.

    None where it never does: every layer has a sliding window that is too short. Raises as
    `predict_decode`.
    """

    def reached(context: int) -> bool:
        p = predict_decode(config, scheme, (1.0, None), context=context, batch=batch)
        return p.kv_bytes >= p.weight_bytes

    low, high = 0, 1
    while not reached(high):
        low, high = high, 2 * high
        if high > _LARGEST_CONTEXT:
            return None
    # The cache only grows with the context, so halving finds the first one.
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


def answer(
    model: Any = None, scheme: str = "int4-g32", batch: int = 1
) -> dict[str, tuple[int, int | None]]:
    """Of every model: (parameters, context at which the cache costs as much as the weights).

    Answers `QUESTION`. model: as for `make_bench`, added first under "loaded model".
    """
    from slmlab.measure import read_architecture

    return {
        name: (
            read_architecture(config).parameters,
            cache_equals_weights_at(config, scheme, batch),
        )
        for name, config in make_bench(model).models.items()
    }


def _headline(p: Prediction) -> str:
    each = ""
    if p.batch > 1:
        each = f" together, {digits(p.tokens_per_second_each)} for each of {p.batch} sequences"
    return f"At most {digits(p.tokens_per_second)} tokens/s{each}."


def _limit(p: Prediction) -> str:
    read = bytes_text(p.weight_bytes + p.kv_bytes)
    reading = f"{read} at {digits(p.bandwidth_gb_s)} GB/s take {seconds_text(p.bandwidth_seconds)}"
    if p.compute_seconds is None or p.peak_gflop_s is None:
        return (
            f"Memory bandwidth is the limit as far as is known: {reading} a step; no peak rate "
            "of this device is published."
        )
    rate = f"{digits(p.flops / 1e9)} GFLOP at {digits(p.peak_gflop_s)} GFLOP/s"
    computing = f"{rate} take {seconds_text(p.compute_seconds)}"
    first, second = (computing, reading) if p.limiting == "compute" else (reading, computing)
    return f"{p.limiting.capitalize()} is the limit: {first} a step, while {second}."


def _memory(p: Prediction, needed: int, memory: int | None, device: str) -> str:
    parts = (
        f"Memory needed: {_gb(p.stored_bytes)} weights + {_gb(p.kv_bytes)} KV cache = {_gb(needed)}"
    )
    if memory is None:
        return f"{parts}; {device} is sold with several sizes of memory."
    if needed <= memory:
        return f"{parts}, {digits(100 * needed / memory)} % of the {_gb(memory)} of {device}."
    return (
        f"{parts}: {_gb(needed - memory)} more than the {_gb(memory)} of {device}. It does not fit."
    )


def _gb(count: int) -> str:
    return f"{digits(count / 1e9)} GB"


def _cache(p: Prediction) -> str:
    return (
        f"A step reads {bytes_text(p.weight_bytes)} of weights and {bytes_text(p.kv_bytes)} of "
        f"cache: {digits(p.kv_bytes / p.weight_bytes)} times the weights."
    )


def _notes(config: Any, state: State) -> tuple[str, ...]:
    made_for = getattr(config, "max_position_embeddings", None)
    if isinstance(made_for, int) and state.context > made_for:
        return (f"Note: {state.model} is made for contexts up to {made_for:,} tokens.",)
    return ()
