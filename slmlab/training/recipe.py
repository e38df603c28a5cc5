"""A training recipe: every choice that decides the weights, in one TOML file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path

from slmlab.models import ModelConfig, RopeConfig
from slmlab.training.field_types import check_type
from slmlab.training.stage import SOURCES, Stage, read_stages

RECIPES = Path(__file__).parent / "recipes"
_LARGEST_VOCABULARY = 2**16  # token rows are uint16


@dataclass(frozen=True)
class Recipe:
    """What to train and how. Rows are sequences of ``sequence_length`` tokens.

    ``induction``: the first two layers start with an induction circuit
    (slmlab.training.initialisation).
    ``stages`` follow one another under one learning-rate schedule: a warm-up over
    ``warmup_steps``, a plateau, a decay to zero over the last ``decay_steps``. ``teacher`` names a
    model whose logits replace the hard labels. Raises TypeError for a field of the wrong type,
    ValueError for a value that cannot be trained with.
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
    warmup_steps: int
    decay_steps: int
    muon_lr: float
    embedding_lr: float
    norm_lr: float
    weight_decay: float
    grammar_tokens: int
    stages: tuple[Stage, ...]
    rope_theta: float = 10000.0
    induction: bool = False
    teacher: str | None = None
    sampled_tokens: int = 0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name != "stages":
                check_type(field.name, getattr(self, field.name), str(field.type))
        object.__setattr__(self, "stages", read_stages(self.stages))
        self._check_numbers()
        if not 0 <= self.warmup_steps <= self.steps:
            raise ValueError(
                f"warmup_steps must lie within the {self.steps} steps of all stages, got "
                f"{self.warmup_steps}"
            )
        if not 0 <= self.decay_steps <= self.steps - self.warmup_steps:
            raise ValueError("decay_steps must lie between 0 and steps - warmup_steps")
        self._check_stages()
        if self.induction and (
            min(self._depth(stage) for stage in self.stages) < 2
            or 2 * self.head_dim >= self.hidden_size
        ):
            raise ValueError(
                "induction needs at least two layers from the first step on, and a hidden_size "
                "above twice the head_dim"
            )
        self.model_config()  # impossible sizes show now, not after the rows are prepared

    def _check_stages(self) -> None:
        if "sampled" in self.sources and (self.teacher is None or self.sampled_tokens < 1):
            raise ValueError("rows of 'sampled' text need a teacher and sampled_tokens")
        if self.sources == ("sampled",):
            raise ValueError("rows of 'sampled' text need another source for their beginnings")
        for stage in self.stages:
            if self.sequence_length % stage.pieces:
                raise ValueError(
                    f"stages.pieces must divide sequence_length {self.sequence_length}, got "
                    f"{stage.pieces}"
                )
        depth = 0
        for layers in map(self._depth, self.stages):
            if not max(1, depth) <= layers <= self.num_hidden_layers:
                raise ValueError(
                    f"stages.layers must not shrink and lie between 1 and num_hidden_layers = "
                    f"{self.num_hidden_layers}, got {layers} after {depth}"
                )
            depth = layers
        if depth < self.num_hidden_layers:
            raise ValueError(
                f"the last stage trains {depth} of {self.num_hidden_layers} layers: leave its "
                "layers out"
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
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources of all stages, in the order of SOURCES."""
        used = {source for stage in self.stages for source in stage.rows}
        return tuple(source for source in SOURCES if source in used)

    def stage_at(self, step: int) -> Stage:
        """The stage that ``step`` belongs to; steps count from 0."""
        for stage in self.stages:
            if step < stage.steps:
                return stage
            step -= stage.steps
        raise ValueError(f"the recipe has {self.steps} steps: there is no step {step + self.steps}")

    def rows_before(self, step: int, source: str) -> int:
        """How many rows of ``source`` the steps before ``step`` took."""
        taken = 0
        for stage in self.stages:
            taken += min(step, stage.steps) * stage.rows.get(source, 0)
            step -= min(step, stage.steps)
        return taken

    def layers_at(self, step: int) -> int:
        """How many layers ``step`` trains: the first ones only, until the decoder grows."""
        return self._depth(self.stage_at(step))

    def _depth(self, stage: Stage) -> int:
        return self.num_hidden_layers if stage.layers is None else stage.layers

    def rate(self, step: int) -> float:
        """Learning-rate multiplier: linear warm-up, a plateau, linear decay to zero."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        left = self.steps - step
        return min(1.0, left / self.decay_steps) if self.decay_steps else 1.0

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
        for field in ("name", "decay_steps", "stages"):
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
