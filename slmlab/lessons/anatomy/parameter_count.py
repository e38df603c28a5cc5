"""anatomy.parameter_count: from a config to the number of trained values."""

from __future__ import annotations

import random
from functools import partial
from types import SimpleNamespace

from slmlab.checking import Case, Exact, Exercise, Mistake
from slmlab.models.config import ModelConfig


def cases(seed: int) -> list[Case]:
    """Five sizes, then one option at a time: a counterexample never needs more than six numbers."""
    draw = random.Random(seed)
    heads = 2
    hidden = heads * draw.choice((2, 4, 6))
    small = {
        "vocab_size": draw.randint(8, 20),
        "hidden_size": hidden,
        "intermediate_size": draw.randint(5, 15),
        "num_hidden_layers": draw.randint(1, 3),
        "num_attention_heads": heads,
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
    configs = [
        small,
        small | {"tie_word_embeddings": True},
        # Stated and missing must mean the same: only this tells a wrong default from no head.
        small | {"tie_word_embeddings": False},
        small | {"num_key_value_heads": 1},
        small | {"head_dim": hidden // heads + 2},
        large,
    ]
    return [Case({"config": config}) for config in configs]


def reference(config: dict[str, int]) -> int:
    """ModelConfig's own count; the fields that no shape depends on are filled in."""
    rest = {"model_type": "llama", "max_position_embeddings": 1, "rms_norm_eps": 1e-6}
    return ModelConfig.from_hf(SimpleNamespace(**rest, **config)).parameter_count()


def _count(
    config: dict[str, int],
    *,
    tied_head: int = 0,
    missing_is_tied: bool = False,
    kv_by_query_heads: bool = False,
    narrow_output: bool = False,
    given_head_dim: bool = True,
    norms: int = 1,
) -> int:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    kv_heads = heads if kv_by_query_heads else config.get("num_key_value_heads", heads)
    head_dim = config.get("head_dim", hidden // heads) if given_head_dim else hidden // heads
    output_heads = kv_heads if narrow_output else heads
    attention = hidden * head_dim * (heads + output_heads + 2 * kv_heads)
    mlp = 3 * hidden * config["intermediate_size"]
    layer = attention + mlp + norms * 2 * hidden
    head = tied_head if config.get("tie_word_embeddings", missing_is_tied) else 1
    table = config["vocab_size"] * hidden
    return (1 + head) * table + config["num_hidden_layers"] * layer + norms * hidden


def _matrix_by_matrix(config: dict[str, int]) -> int:
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    head_dim = config.get("head_dim") or hidden // heads
    queries = heads * head_dim
    keys = (config.get("num_key_value_heads") or heads) * head_dim
    wide = config["intermediate_size"]
    layer = [(queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries)]
    layer += [(wide, hidden), (wide, hidden), (hidden, wide), (1, hidden), (1, hidden)]
    shapes = layer * config["num_hidden_layers"] + [(config["vocab_size"], hidden), (1, hidden)]
    if not config.get("tie_word_embeddings"):
        shapes.append((config["vocab_size"], hidden))
    return sum(rows * columns for rows, columns in shapes)


PARAMETER_COUNT = Exercise(
    id="anatomy.parameter_count",
    title="Count the parameters of a config",
    points=3,
    minutes=10,
    difficulty=1,
    cases=cases,
    reference=reference,
    mistakes=(
        Mistake(
            "tied head counted twice",
            "Untied configs are right, tied ones are too large by vocab_size x hidden_size: a tied "
            "head is the embedding table itself. How many copies of it lie in the file?",
            partial(_count, tied_head=1),
        ),
        Mistake(
            "missing tie_word_embeddings read as tied",
            "Configs that state tie_word_embeddings are right, those without it are too small by "
            "vocab_size x hidden_size: a missing field means not tied. What is your default?",
            partial(_count, missing_is_tied=True),
        ),
        Mistake(
            "KV projections sized by query heads",
            "Configs with num_key_value_heads are too large: several query heads share one KV head, "
            "so how many rows do the key and value projections have?",
            partial(_count, kv_by_query_heads=True),
        ),
        Mistake(
            "o projection as narrow as k and v",
            "Configs with num_key_value_heads are too small: only k and v are narrow. The o "
            "projection takes what every query head brings back. How many columns has it?",
            partial(_count, narrow_output=True),
        ),
        Mistake(
            "head_dim computed although given",
            "Configs that state head_dim are off: it need not be hidden_size / num_attention_heads. "
            "Which one do the shapes of the projections follow?",
            partial(_count, given_head_dim=False),
        ),
        Mistake(
            "norms forgotten",
            "You are short by a few multiples of hidden_size: each RMSNorm has one gain a channel. "
            "How many norms are in a layer, and is there one after the last layer?",
            partial(_count, norms=0),
        ),
    ),
    hints=(
        "Every trained value belongs to exactly one matrix or vector of the file. List them for one "
        "layer, then what lies outside the layers. Which of yours is listed twice, or not at all?",
        "vocab_size 10, hidden_size 4, intermediate_size 6, 1 layer, 2 heads, 1 KV head, tied. "
        "Three parts: the table 10*4 = 40; the layer q 4*4 + k 2*4 + v 2*4 + o 4*4 = 48, MLP "
        "3*4*6 = 72, two norms 2*4 = 8, together 128; the last norm 4. Sum 172.",
        "head_dim = the given one, else hidden_size // num_attention_heads\n"
        "q and o: hidden x heads*head_dim each; k and v: hidden x kv_heads*head_dim each\n"
        "MLP: three times hidden x intermediate; norms: two times hidden\n"
        "all layers + hidden (last norm) + vocab x hidden (once if tied, else twice)",
    ),
    compare=Exact(),
    alternatives=(_matrix_by_matrix,),
)
