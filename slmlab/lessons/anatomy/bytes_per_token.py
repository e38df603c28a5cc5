"""anatomy.bytes_per_token: what one decoded token makes the memory deliver."""

from __future__ import annotations

import random
from functools import partial
from types import SimpleNamespace

from slmlab.checking import Case, Close, Exercise, Mistake
from slmlab.measure import predict_decode

# Schemes whose bits a weight are exactly these wherever 32 divides the input dimension.
SCHEMES = {16: "float16", 8.5: "int8-g32", 4.5: "int4-g32", 2.5: "int2-g32"}
KV_DTYPES = {1: "float8", 2: "float16", 4: "float32"}


def cases(seed: int) -> list[Case]:
    """Weights alone, then quantised, then with a cache, then each option of the config."""
    draw = random.Random(seed)
    bits, context = draw.choice((8.5, 4.5, 2.5)), draw.randint(3, 40)
    small = {
        "vocab_size": draw.randint(40, 90),
        "hidden_size": 64,
        "intermediate_size": 32 * draw.randint(3, 6),
        "num_hidden_layers": draw.randint(2, 3),
        "num_attention_heads": 2,
    }
    large = {
        "vocab_size": draw.choice((32000, 49152, 128256)),
        "hidden_size": 64 * draw.randint(9, 32),
        "intermediate_size": 256 * draw.randint(5, 20),
        "num_hidden_layers": draw.randint(12, 32),
        "num_attention_heads": 16,
        "num_key_value_heads": draw.choice((2, 4, 8)),
        "head_dim": 128,
        "tie_word_embeddings": draw.random() < 0.5,
    }
    kv = draw.choice((1, 4))
    rows = [
        (small, 16, 0, 2),
        (small, bits, 0, 2),
        (small, bits, context, 2),
        (small | {"tie_word_embeddings": True}, bits, context, 2),
        (small | {"num_key_value_heads": 1}, bits, context, 2),
        (small | {"head_dim": 64}, bits, context, kv),
        (large, 4.5, draw.randint(1000, 9000), kv),
    ]
    names = ("config", "bits_per_weight", "context", "kv_value_bytes")
    return [Case(dict(zip(names, row, strict=True))) for row in rows]


def reference(
    config: dict[str, int], bits_per_weight: float, context: int, kv_value_bytes: int
) -> int:
    """What predict_decode reads in one step; bandwidth does not matter for the bytes."""
    scheme, kv_dtype = SCHEMES[bits_per_weight], KV_DTYPES[kv_value_bytes]
    step = predict_decode(
        SimpleNamespace(**config), scheme, (1.0, None), context=context, kv_dtype=kv_dtype
    )
    return step.weight_bytes + step.kv_bytes


def _read(
    config: dict[str, int],
    bits_per_weight: float,
    context: int,
    kv_value_bytes: int,
    *,
    norm_bytes: int = 2,
    whole_embedding: bool = False,
    quantised_head: bool = False,
    kv_tensors: int = 2,
    kv_of_query_heads: bool = False,
) -> float:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    head_dim = config.get("head_dim", hidden // heads)
    layers, vocabulary = config["num_hidden_layers"], config["vocab_size"]
    attention = 2 * hidden * head_dim * (heads + kv_heads)
    linears = layers * (attention + 3 * hidden * config["intermediate_size"])
    norms = (2 * layers + 1) * hidden
    rows = 0
    if not config.get("tie_word_embeddings", False):
        rows = vocabulary if whole_embedding else 1
    head_bytes = bits_per_weight / 8 if quantised_head else 2
    weights = linears * bits_per_weight / 8
    tables = head_bytes * vocabulary * hidden + 2 * rows * hidden
    cached_heads = heads if kv_of_query_heads else kv_heads
    kv = kv_tensors * layers * context * cached_heads * head_dim * kv_value_bytes
    return weights + tables + norm_bytes * norms + kv


def _tensor_by_tensor(
    config: dict[str, int], bits_per_weight: float, context: int, kv_value_bytes: int
) -> float:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    queries = heads * head_dim
    keys = (config.get("num_key_value_heads") or heads) * head_dim
    total = 0.0
    for _ in range(config["num_hidden_layers"]):
        for outputs in (queries, keys, keys):
            total += outputs * hidden * bits_per_weight / 8
        total += hidden * queries * bits_per_weight / 8
        total += 3 * hidden * config["intermediate_size"] * bits_per_weight / 8
        total += 2 * hidden * 2
        total += 2 * context * keys * kv_value_bytes
    total += hidden * 2 + config["vocab_size"] * hidden * 2
    return total if config.get("tie_word_embeddings") else total + hidden * 2


BYTES_PER_TOKEN = Exercise(
    id="anatomy.bytes_per_token",
    title="Bytes read to decode one token",
    points=4,
    minutes=12,
    difficulty=2,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "embedding table read whole",
            "Untied configs are too large by nearly vocab_size x hidden_size values: a token looks "
            "up its own row of the embedding table. How many rows does one token need?",
            partial(_read, whole_embedding=True),
        ),
        Mistake(
            "keys without values",
            "The cache is counted at half its size: attention scores the keys, and then sums what?",
            partial(_read, kv_tensors=1),
        ),
        Mistake(
            "KV cache forgotten",
            "Right at context 0, too small with a context: attention looks back at every token so "
            "far. What does it read of each of them?",
            partial(_read, kv_tensors=0),
        ),
        Mistake(
            "KV cache sized by query heads",
            "Off where num_key_value_heads is below num_attention_heads: query heads share KV "
            "heads. Whose keys and values does the cache store?",
            partial(_read, kv_of_query_heads=True),
        ),
        Mistake(
            "head quantised like the linears",
            "Right at 16 bits, too small below: bits_per_weight is that of the matrices inside the "
            "layers. In which precision does this exercise keep the head?",
            partial(_read, quantised_head=True),
        ),
        Mistake(
            "norms forgotten",
            "Too small by a few multiples of hidden_size: the gains of the norms are read for each "
            "token as well. How many norms has a layer, and is there one after the last layer?",
            partial(_read, norm_bytes=0),
        ),
    ),
    hints=(
        "Whatever the new token's arithmetic touches is read once, and nothing else is. At context "
        "0 the answer is weights alone; each cached token adds the same number of bytes. Does "
        "yours?",
        "vocab_size 40, hidden_size 64, intermediate_size 96, 2 layers, 2 heads, 1 KV head, not "
        "tied, 4.5 bits, context 10, 2 bytes a cached value. Three parts: linears "
        "2*(2*64*32*3 + 3*64*96) = 61,440 weights, 34,560 bytes; at 16 bits the head 40*64, one "
        "row 64 and five norms 5*64, 5,888 bytes; cache 2*2*10*1*32 values, 2,560 bytes. "
        "Sum 43,008.",
        "linears = layers * (q, k, v, o and three MLP matrices), times bits / 8\n"
        "sixteen_bit = vocab * hidden (head) + hidden (one row, if not tied) "
        "+ (2 * layers + 1) * hidden (norms), times 2\n"
        "cache = 2 * layers * context * kv_heads * head_dim * kv_value_bytes\n"
        "return linears + sixteen_bit + cache",
    ),
    compare=Close(rtol=1e-9, atol=0.5),
    alternatives=(_tensor_by_tensor,),
    unit="bytes",
)
