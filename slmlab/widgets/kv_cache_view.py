"""What the explorer of lesson 04 shows for a state: bytes of a cache, and the context that fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from slmlab.kv import CacheShape, kv_bytes
from slmlab.kv.minmax import MinMaxGrid
from slmlab.measure.predict import weight_bytes_stored
from slmlab.widgets.kv_cache_models import cache_configs
from slmlab.widgets.units import bytes_text, digits

LOADED_MODEL = "loaded model"
WEIGHTS = ("float16", "int8", "int4-g32")
KINDS = ("float32", "float16", "int8", "int4", "int2")
CONTEXTS = tuple(2**k + half * 2 ** (k - 1) for k in range(7, 18) for half in (0, 1))
BATCHES = (1, 2, 4, 8, 16, 32, 64)
OWN = "the model's own"
WINDOWS: tuple[int | str, ...] = (OWN, 4096, 1024, 512, 256, 128)
MEMORY_GB = (2, 4, 8)
# As QuantizedCache's defaults: tokens of a group, and newest tokens that stay as they came.
GROUP, RESIDUAL = 32, 32
QUESTION = (
    "In 2 GB, next to weights in int4-g32 and with a float16 cache: which published model holds "
    "the longest conversation?"
)
LONGEST = 2**40  # tokens; what fits here grows no more


@dataclass(frozen=True)
class State:
    """One setting of the controls. context: tokens a conversation; batch: conversations."""

    model: str = "Llama-3.2-1B"
    weights: str = "int4-g32"
    kind: str = "float16"
    context: int = 4096
    batch: int = 1
    window: int | str = OWN


@dataclass(frozen=True)
class View:
    """What is shown for a state.

    cache_bytes, weight_bytes: stored. token_bytes: what one more token of each conversation adds
    while no window is full. fits: GB of memory -> tokens a conversation that fit next to the
    weights; 0 where the weights alone do not, None where any length does.
    """

    state: State
    cache_bytes: int
    weight_bytes: int
    token_bytes: int
    fits: dict[int, int | None]
    headline: str
    token: str
    room: str
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        """All sentences in reading order."""
        return " ".join((self.headline, self.token, self.room, *self.notes))


def make_models(model: Any = None) -> dict[str, Any]:
    """The published shapes, with the loaded model's first. model: LanguageModel, model or config.

    Raises ValueError or TypeError for a config without sizes.
    """
    if model is None:
        return cache_configs()
    inner = getattr(model, "model", model)
    config = getattr(inner, "config", None) or getattr(model, "config", None) or model
    weight_bytes_stored(config, "float16")
    return {LOADED_MODEL: config, **cache_configs()}


def cache_bytes(
    config: Any, tokens: int, batch: int = 1, kind: str = "float16", window: int | None = None
) -> int:
    """Bytes of keys and values of ``batch`` conversations of ``tokens`` tokens.

    kind: float32 or float16, or int8, int4, int2 as `QuantizedCache` stores them: groups of 32 with
    an fp16 scale and minimum each, the newest 32 tokens at least in float16. window: tokens that a
    layer keeps at most, beside its own window. Raises as `kv_bytes`, ValueError for another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is not offered; choose one of {', '.join(KINDS)}")
    shape = CacheShape.of(config)
    windows = [_narrower(own, window) for own in shape.layer_windows]
    narrowed = SimpleNamespace(
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        layer_windows=windows,
    )
    if kind.startswith("float"):
        return kv_bytes(narrowed, tokens, batch, kind)
    bits = int(kind.removeprefix("int"))
    keys, values = (MinMaxGrid(bits, GROUP, width) for width in (GROUP, shape.head_dim))
    a_block = shape.head_dim * keys.row_bytes + GROUP * values.row_bytes
    a_token = 2 * shape.head_dim * 2
    total = 0
    for own in windows:
        kept = tokens if own is None else min(tokens, own)
        blocks = max(0, kept - RESIDUAL) // GROUP
        total += blocks * a_block + (kept - blocks * GROUP) * a_token
    return total * shape.kv_heads * batch


def context_that_fits(
    config: Any, left_bytes: float, batch: int = 1, kind: str = "float16", window: int | None = None
) -> int | None:
    """The most tokens a conversation whose cache never takes more than ``left_bytes`` on the way.

    0 where not one token fits, None where any number does. Raises as `cache_bytes`.
    """

    def most(tokens: int) -> int:
        # A quantised cache is largest just before the next group is quantised.
        before = max(0, tokens // GROUP * GROUP - 1)
        return max(cache_bytes(config, n, batch, kind, window) for n in (before, tokens))

    if most(LONGEST) <= left_bytes:
        return None
    low, high = 0, LONGEST
    while high - low > 1:
        middle = (low + high) // 2
        if most(middle) <= left_bytes:
            low = middle
        else:
            high = middle
    return low


def fits_beside_weights(
    config: Any,
    memory_gb: float,
    weights: str = "int4-g32",
    batch: int = 1,
    kind: str = "float16",
    window: int | None = None,
) -> int | None:
    """Tokens a conversation in ``memory_gb`` (10**9 bytes), weights in ``weights`` stored there too."""
    left = memory_gb * 1e9 - weight_bytes_stored(config, weights)
    return 0 if left <= 0 else context_that_fits(config, left, batch, kind, window)


def longest(memory_gb: float = 2, weights: str = "int4-g32", kind: str = "float16") -> str:
    """Answers `QUESTION`: the published model that holds the most tokens."""
    held = {
        name: fits_beside_weights(config, memory_gb, weights, kind=kind)
        for name, config in cache_configs().items()
    }
    return max(held, key=lambda name: _tokens(held[name]))


def view(models: Mapping[str, Any], state: State) -> View:
    """What to show for ``state``. Raises ValueError for a model that is not among ``models``."""
    if state.model not in models:
        raise ValueError(f"model {state.model!r} is not offered; choose one of {', '.join(models)}")
    config, shape = models[state.model], CacheShape.of(models[state.model])
    window = window_tokens(state.window)
    stored = cache_bytes(config, state.context, state.batch, state.kind, window)
    weights = weight_bytes_stored(config, state.weights)
    a_token = cache_bytes(config, 1, state.batch, state.kind)
    if not state.kind.startswith("float"):
        # What a whole group adds once it is quantised, over its tokens.
        two, one = (cache_bytes(config, RESIDUAL + n * GROUP, 1, state.kind) for n in (2, 1))
        a_token = round((two - one) / GROUP) * state.batch
    fits = {
        memory: fits_beside_weights(config, memory, state.weights, state.batch, state.kind, window)
        for memory in MEMORY_GB
    }
    heads = config.num_attention_heads
    many = state.batch > 1
    return View(
        state=state,
        cache_bytes=stored,
        weight_bytes=weights,
        token_bytes=a_token,
        fits=fits,
        headline=(
            f"{state.model}, {state.context:,} tokens"
            f"{f' in each of {state.batch} conversations' if many else ''}, {state.kind}: the cache takes "
            f"{bytes_text(stored)}, {digits(stored / weights)} times the weights "
            f"({bytes_text(weights)} in {state.weights})."
        ),
        token=(
            f"{'A token in each of them' if many else 'A token'} adds {bytes_text(a_token)}: {shape.layers} layers, {shape.kv_heads} KV "
            f"head{'s' * (shape.kv_heads > 1)} of {shape.head_dim} ({heads} query heads ask them)."
        ),
        room="Next to the weights fit: "
        + "; ".join(f"in {gb} GB {tokens_text(tokens)}" for gb, tokens in fits.items())
        + (" in each conversation." if many else "."),
        notes=_notes(config, shape, state, fits),
    )


def window_tokens(window: int | str) -> int | None:
    """The control's value as tokens; None leaves the model's own windows."""
    return None if isinstance(window, str) else window


def tokens_text(tokens: int | None) -> str:
    """ "any length", "nothing", "36,900 tokens"."""
    if tokens is None:
        return "any length"
    return "nothing" if tokens == 0 else f"{digits(tokens)} tokens"


def _tokens(tokens: int | None) -> float:
    return float("inf") if tokens is None else tokens


def _narrower(own: int | None, window: int | None) -> int | None:
    return min((w for w in (own, window) if w is not None), default=None)


def _notes(
    config: Any, shape: CacheShape, state: State, fits: Mapping[int, int | None]
) -> tuple[str, ...]:
    notes = []
    windows = [w for w in shape.layer_windows if w is not None]
    if windows:
        notes.append(
            f"Its own windows: {len(windows)} of {shape.layers} layers keep {min(windows):,} tokens."
        )
    if isinstance(state.window, int):
        notes.append(f"Cut to {state.window:,} tokens a layer: what is older is forgotten.")
    trained = getattr(config, "max_position_embeddings", None)
    if trained and any(_tokens(tokens) > trained for tokens in fits.values()):
        notes.append(f"It was made for {trained:,} tokens: what fits beyond is memory only.")
    if not state.kind.startswith("float"):
        notes.append("Scales and minima are counted; the newest 32 tokens stay in float16.")
    return tuple(notes)
