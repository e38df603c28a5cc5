"""ContiguousCache under random traces, and the bytes of real models."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slmlab.kv import ContiguousCache, kv_bytes
from slmlab.models import Decoder, ModelConfig

CONFIG = ModelConfig("llama", 17, 12, 16, 2, 4, 2, 6, 64)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 5)),
        st.tuples(st.just("truncate"), st.floats(0, 1)),
    ),
    max_size=20,
)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, batch=st.integers(1, 3))
def test_equals_plain_concatenation(steps: list[tuple[str, float]], batch: int) -> None:
    cache = ContiguousCache(CONFIG, batch, max_length=100)
    k_all = v_all = torch.empty(CONFIG.num_hidden_layers, batch, 2, 0, 6)
    reserved = cache.nbytes
    for action, amount in steps:
        if action == "truncate":
            keep = int(amount * cache.length)
            cache.truncate(keep)
            k_all, v_all = k_all[..., :keep, :], v_all[..., :keep, :]
            continue
        k, v = torch.randn(2, CONFIG.num_hidden_layers, batch, 2, int(amount), 6)
        k_all, v_all = torch.cat([k_all, k], dim=-2), torch.cat([v_all, v], dim=-2)
        for layer in range(CONFIG.num_hidden_layers):
            keys, values = cache.append(layer, k[layer], v[layer])
            assert torch.equal(keys, k_all[layer]) and torch.equal(values, v_all[layer])
    assert cache.length == k_all.shape[-2]
    assert cache.nbytes == reserved == kv_bytes(CONFIG, 100, batch, "float32")


def test_limits() -> None:
    with pytest.raises(ValueError, match="max_length=0 must be at least 1"):
        ContiguousCache(CONFIG, max_length=0)
    with pytest.raises(TypeError, match=r"max_length must be an int, not 4\.0"):
        ContiguousCache(CONFIG, max_length=4.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"dtype must be a torch\.dtype"):
        ContiguousCache(CONFIG, max_length=4, dtype="float16")  # type: ignore[arg-type]
    cache = ContiguousCache(CONFIG, max_length=4)
    k = torch.zeros(1, 2, 5, 6)
    with pytest.raises(ValueError, match="max_length=4 is too small: this pass ends at token 5"):
        cache.append(0, k, k)
    assert cache.length == 0
    for n in (-1, 1):
        with pytest.raises(ValueError, match="must lie between 0 and the cache's length 0"):
            cache.truncate(n)
    for odd in (0.0, True, "0"):
        with pytest.raises(TypeError, match="n must be an int"):
            cache.truncate(odd)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(2, 2, 1, 6), (1, 4, 1, 6), (1, 2, 1, 8), (1, 2, 6)])
def test_another_models_shapes_are_refused(shape: tuple[int, ...]) -> None:
    cache = ContiguousCache(CONFIG, max_length=4)
    k = torch.zeros(shape)
    with pytest.raises(ValueError, match=r"= \(1, 2, T, 6\): make it with this model's config"):
        cache.append(0, k, k)
    with pytest.raises(ValueError, match="make it with this model's config"):
        cache.append(0, torch.zeros(1, 2, 1, 6), torch.zeros(1, 2, 2, 6))


def test_another_models_dtype_is_refused() -> None:
    cache = ContiguousCache(CONFIG, max_length=4, dtype=torch.float16)
    k = torch.zeros(1, 2, 1, 6)
    with pytest.raises(ValueError, match=r"torch\.float32 to a cache of torch\.float16"):
        cache.append(0, k, k)


@pytest.mark.parametrize(
    ("layers", "message"), [(1, "takes layers 0 to 0"), (3, "did not advance by the 4 tokens")]
)
def test_a_cache_of_another_number_of_layers_is_noticed(layers: int, message: str) -> None:
    model = Decoder(CONFIG).eval()
    cache = ContiguousCache(
        replace(CONFIG, num_hidden_layers=layers, layer_windows=()), max_length=8
    )
    with pytest.raises(ValueError, match=message):
        model(torch.arange(4)[None], cache)


class Shape:
    """A config in Hugging Face's names, with only the fields given."""

    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)


# Field values from the models' published config.json files.
LLAMA_32_1B = Shape(
    num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8, head_dim=64
)
GPT2_SMALL = Shape(num_hidden_layers=12, num_attention_heads=12, hidden_size=768)
MISTRAL_7B = Shape(
    num_hidden_layers=32,
    num_attention_heads=32,
    num_key_value_heads=8,
    hidden_size=4096,
    sliding_window=4096,
)


def test_published_shapes() -> None:
    assert kv_bytes(LLAMA_32_1B, 1) == 32 * 1024
    assert kv_bytes(LLAMA_32_1B, 8192) == 256 * 1024**2
    assert kv_bytes(LLAMA_32_1B, 8192, batch=4, dtype="float32") == 2 * 4 * 256 * 1024**2
    assert kv_bytes(GPT2_SMALL, 1, dtype="float32") == 2 * 12 * 768 * 4
    assert kv_bytes(MISTRAL_7B, 4096) == kv_bytes(MISTRAL_7B, 32768) == 512 * 1024**2


def test_windows_by_layer() -> None:
    hybrid = Shape(
        num_hidden_layers=3,
        num_attention_heads=2,
        head_dim=4,
        sliding_window=10,
        layer_types=["full_attention", "sliding_attention", "sliding_attention"],
    )
    per_token_and_layer = 2 * 2 * 4 * 2
    assert kv_bytes(hybrid, 100) == (100 + 10 + 10) * per_token_and_layer
    unused = Shape(**{**hybrid.__dict__, "use_sliding_window": False})
    assert kv_bytes(unused, 100) == 300 * per_token_and_layer


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="dtype 'int3' is unknown; use one of float32"):
        kv_bytes(CONFIG, 1, dtype="int3")
    with pytest.raises(ValueError, match="tokens=-1 must be at least 0"):
        kv_bytes(CONFIG, -1)
    with pytest.raises(ValueError, match="config needs num_hidden_layers"):
        kv_bytes(object(), 1)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"num_key_value_heads": 0}, ValueError, "num_key_value_heads=0 must be at least 1"),
        ({"num_hidden_layers": -2}, ValueError, "num_hidden_layers=-2 must be at least 1"),
        ({"head_dim": 64.0}, TypeError, r"head_dim must be an int, not 64\.0"),
        ({"num_attention_heads": "32"}, TypeError, "num_attention_heads must be an int"),
        ({"sliding_window": -1}, ValueError, "sliding_window=-1 must be at least 1"),
        ({"sliding_window": 0}, ValueError, "sliding_window=0 must be at least 1"),
        ({"layer_windows": (None,)}, ValueError, "layer_windows names 1 layers"),
        (
            {"sliding_window": 4, "layer_types": ["full_attention"]},
            ValueError,
            "layer_types names 1 layers, num_hidden_layers says 16",
        ),
        ({"head_dim": None}, ValueError, "config needs head_dim, or hidden_size"),
        ({"head_dim": None, "hidden_size": 8}, ValueError, "=0 must be at least 1"),
    ],
)
def test_bad_sizes(changes: dict[str, object], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        kv_bytes(Shape(**{**LLAMA_32_1B.__dict__, **changes}), 8)


@pytest.mark.parametrize("odd", [1.5, True, "8"])
def test_counts_are_ints(odd: object) -> None:
    with pytest.raises(TypeError, match="tokens must be an int"):
        kv_bytes(CONFIG, odd)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="batch must be an int"):
        kv_bytes(CONFIG, 8, odd)  # type: ignore[arg-type]
