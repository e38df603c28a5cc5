"""A training recipe: every choice that decides the weights, in one TOML file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slmlab.models import ModelConfig, RopeConfig

RECIPES = Path(__file__).parent / "recipes"
_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "str | None": (str, type(None)),
    "int | None": (int, type(None)),
    "int": (int,),
    "float": (float, int),
    "dict[str, int]": (dict,),
}
SOURCES = ("docs", "stdlib-docs", "code", "grammar", "sampled")
_LARGEST_VOCABULARY = 2**16  # token rows are uint16


@dataclass(frozen=True)
class Recipe:
    """What to train and how. Rows are sequences of ``sequence_length`` tokens.

    ``rows`` says how many rows of a batch come from each of SOURCES ("sampled" is text
    that the teacher of a draft wrote). ``teacher`` names a model whose logits
    replace the hard labels. With ``initial_layers`` the steps before ``growth_step`` train only the
    first layers (slmlab.training.growth). Raises TypeError for a field of the wrong type, ValueError for a value
    that cannot be trained with.
    """

    name: str
    seed: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    sequence_length: int
    steps: int
    warmup_steps: int
    decay_steps: int
    muon_lr: float
    embedding_lr: float
    norm_lr: float
    weight_decay: float
    grammar_tokens: int
    rows: dict[str, int]
    rope_theta: float = 10000.0
    initial_layers: int | None = None
    growth_step: int = 0
    teacher: str | None = None
    sampled_tokens: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), str(field.type))
        for source, count in self.rows.items():
            _check_type(f"rows.{source}", count, "int")
        self._check_numbers()
        if self.steps < 1 or not 0 <= self.warmup_steps <= self.steps:
            raise ValueError("steps must be at least 1 and warmup_steps lie within them")
        if not 0 <= self.decay_steps <= self.steps - self.warmup_steps:
            raise ValueError("decay_steps must lie between 0 and steps - warmup_steps")
        self._check_growth()
        known = set(SOURCES)
        if not self.rows or set(self.rows) - known or min(self.rows.values()) < 1:
            raise ValueError(f"rows must give a positive count for some of {sorted(known)}")
        if ("sampled" in self.rows) and (self.teacher is None or self.sampled_tokens < 1):
            raise ValueError("rows of 'sampled' text need a teacher and sampled_tokens")
        if set(self.rows) == {"sampled"}:
            raise ValueError("rows of 'sampled' text need another source for their beginnings")
        self.model_config()  # impossible sizes show now, not after the rows are prepared

    def _check_growth(self) -> None:
        if self.initial_layers is None:
            if self.growth_step != 0:
                raise ValueError(f"growth_step is {self.growth_step}: it needs initial_layers")
            return
        if not 1 <= self.initial_layers < self.num_hidden_layers:
            raise ValueError(
                f"initial_layers must lie between 1 and {self.num_hidden_layers - 1} "
                f"(num_hidden_layers is {self.num_hidden_layers}), got {self.initial_layers}"
            )
        if not 1 <= self.growth_step < self.steps:
            raise ValueError(
                f"growth_step must lie between 1 and {self.steps - 1} (steps is {self.steps}), "
                f"got {self.growth_step}"
            )

    def _check_numbers(self) -> None:
        for name in ("muon_lr", "embedding_lr", "norm_lr", "rope_theta", "weight_decay"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be a finite number of at least 0, got {value}")
        if self.rope_theta == 0:
            raise ValueError("rope_theta must be positive, got 0")
        for name in ("seed", "grammar_tokens", "sampled_tokens"):
            if not 0 <= getattr(self, name) < 2**63:
                raise ValueError(f"{name} must lie in 0..2**63-1, got {getattr(self, name)}")
        if self.vocab_size > _LARGEST_VOCABULARY:
            raise ValueError(
                f"vocab_size must be at most {_LARGEST_VOCABULARY}, got {self.vocab_size}"
            )

    @property
    def tokens_per_step(self) -> int:
        return self.sequence_length * sum(self.rows.values())

    def rate(self, step: int) -> float:
        """Learning-rate multiplier: linear warm-up, a plateau, linear decay to zero."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        left = self.steps - step
        return min(1.0, left / self.decay_steps) if self.decay_steps else 1.0

    def layers_at(self, step: int) -> int:
        """How many layers ``step`` trains: the first ones only, until the decoder grows."""
        if self.initial_layers is not None and step < self.growth_step:
            return self.initial_layers
        return self.num_hidden_layers

    def model_config(self) -> ModelConfig:
        return ModelConfig(
            model_type="llama",
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_key_value_heads,
            head_dim=self.head_dim,
            max_position_embeddings=self.sequence_length,
            rms_norm_eps=1e-5,
            rope=RopeConfig(theta=self.rope_theta),
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_ids=(0,),
        )

    def digest(self) -> str:
        """Hash of what shapes the steps already taken: a checkpoint of another recipe is refused.

        The schedule is left out, so that the part of it that is still ahead can be changed.
        """
        values = dataclasses.asdict(self)
        for field in ("name", "steps", "decay_steps", "growth_step"):
            values.pop(field)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a shipped recipe ("tiny", "tiny-draft") or a TOML file of one's own.

    Raises:
        ValueError: no such recipe, invalid TOML, an unknown, missing or unusable field.
    """
    path = Path(name_or_path)
    if not path.suffix:
        path = RECIPES / f"{name_or_path}.toml"
    if not path.is_file():
        shipped = ", ".join(sorted(p.stem for p in RECIPES.glob("*.toml")))
        raise ValueError(f"no recipe {str(name_or_path)!r}: use one of {shipped}, or a .toml file")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not valid TOML: {error}") from None
    fields = {field.name for field in dataclasses.fields(Recipe)}
    if unknown := set(values) - fields:
        raise ValueError(f"{path}: unknown field {sorted(unknown)[0]!r}")
    try:
        return Recipe(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None


def _check_type(name: str, value: Any, annotation: str) -> None:
    # bool is an int to isinstance, and never what a recipe means
    if isinstance(value, bool) or not isinstance(value, _TYPES[annotation]):
        wanted = "a table of counts" if annotation.startswith("dict") else annotation
        raise TypeError(f"{name} must be {wanted}, got {value!r}")
