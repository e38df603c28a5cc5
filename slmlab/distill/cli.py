"""``python -m slmlab.distill CONFIG``: a distillation run from a TOML or JSON file.

    teacher = "tiny"                # a directory, an embedded name, or a hub id
    student_layers = 2              # cut from the teacher; or student = "..." for another model
    importance = "block_influence"  # "evenly", "block_influence" or "loss"
    text = "corpus.txt"             # UTF-8; or rows = "rows.safetensors" with ids (and mask)
    out = "student"                 # receives config.json, model.safetensors, the tokenizer
    method = "logits"
    sequence_length = 128

    [options]                       # of the method: k, prompt_tokens, lambda_share, ...

    [settings]                      # steps, batch_size, learning_rate, hard_weight, seed, ...
    steps = 200

On several processes or devices, of one machine or more:

    accelerate launch --multi_gpu --num_processes 2 -m slmlab.distill CONFIG

The same line starts two processes on a machine that has only CPUs; ``accelerate launch --cpu`` starts
a single one there unless MPI is installed. The batch is that of all processes together, so that
their number does not change the result. Names of files are relative to where the command runs. An
interrupted run goes on when it is started again. The last line printed is JSON.
"""

from __future__ import annotations

import json
import signal
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from slmlab.distill.distiller import Distiller
from slmlab.distill.initialisation import depth_pruned, evenly_spaced_layers, student_from_layers
from slmlab.distill.methods import METHODS, Method, method_of
from slmlab.models import Decoder, model_directory, save_decoder

CALIBRATION_ROWS = 16  # of the training rows, to rank layers by
_IMPORTANCES = ("evenly", "block_influence", "loss")


@dataclass(frozen=True)
class Config:
    """The fields of a config file; see the module. Raises ValueError for what contradicts itself."""

    teacher: str
    out: str
    student: str | None = None
    student_layers: int | None = None
    importance: str = "block_influence"
    text: str | None = None
    rows: str | None = None
    sequence_length: int = 128
    method: str = "logits"
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        if (self.student is None) == (self.student_layers is None):
            raise ValueError("give either student or student_layers")
        if (self.text is None) == (self.rows is None):
            raise ValueError("give either text or rows")
        if self.importance not in _IMPORTANCES:
            raise ValueError(
                f"importance={self.importance!r} must be one of {', '.join(_IMPORTANCES)}"
            )

    @classmethod
    def read(cls, path: str | Path) -> Config:
        """From a .toml or .json file. Raises ValueError that names the file and the field."""
        path = Path(path)
        if path.suffix not in (".toml", ".json"):
            raise ValueError(f"{path} must be a .toml or .json file")
        try:
            text = path.read_text(encoding="utf-8")
            values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} cannot be read: {error}") from None
        known = cls.__dataclass_fields__
        if not isinstance(values, dict):
            raise ValueError(f"{path} must hold a table of fields: {', '.join(known)}")
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"{path}: unknown field {unknown[0]!r}; there are {', '.join(known)}")
        if missing := sorted({"teacher", "out"} - set(values)):
            raise ValueError(f"{path}: field {missing[0]!r} is missing")
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None


def load_model(name: str) -> Any:
    """A Decoder in float32, or the transformers model where the layout is not the Decoder's."""
    directory = model_directory(name)
    try:
        return Decoder.from_pretrained(directory)
    except ValueError as error:
        if "has no Decoder layout" not in str(error):
            raise
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a model directory, or None where there is none."""
    from transformers import AutoTokenizer

    directory = model_directory(name)
    if not (directory / "tokenizer.json").is_file():
        return None
    return AutoTokenizer.from_pretrained(directory)


def read_rows(config: Config, tokenizer: Any) -> tuple[Tensor, Tensor | None]:
    """ids (N, T) int64 and a mask or None. Raises ValueError for what holds no rows."""
    if config.rows is not None:
        try:
            tensors = load_file(config.rows)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"rows {config.rows} cannot be read: {error}") from None
        if "ids" not in tensors:
            raise ValueError(f"rows {config.rows} holds no tensor ids: give (rows, time) int64")
        return tensors["ids"], tensors.get("mask")
    assert config.text is not None
    if tokenizer is None:
        raise ValueError(f"teacher {config.teacher} has no tokenizer.json: pass rows, not text")
    try:
        text = Path(config.text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"text {config.text} cannot be read: {error}") from None
    ids = torch.tensor(tokenizer.encode(text, add_special_tokens=False), dtype=torch.int64)
    width = config.sequence_length + 1  # the last token of a row is predicted only
    if len(ids) < width:
        raise ValueError(
            f"text {config.text} has {len(ids)} tokens, one row needs {width}: give more text, or a "
            "smaller sequence_length"
        )
    return ids[: len(ids) // width * width].view(-1, width), None


def build_student(config: Config, teacher: Any, rows: Tensor) -> Any:
    """The model that ``student`` names, or layers of the teacher; trainable."""
    if config.student is not None:
        return load_model(config.student).requires_grad_()
    assert config.student_layers is not None
    if config.importance == "evenly":
        count = teacher.config.num_hidden_layers
        return student_from_layers(teacher, evenly_spaced_layers(count, config.student_layers))
    calibration = rows[:CALIBRATION_ROWS, :-1].contiguous()
    return depth_pruned(teacher, config.student_layers, calibration, config.importance)


def build_method(config: Config) -> Method:
    """The method with its options. Raises ValueError for an option that it lacks."""
    if config.method not in METHODS:
        return method_of(config.method)
    try:
        return METHODS[config.method](**config.options)
    except TypeError as error:
        raise ValueError(f"options of method {config.method!r}: {error}") from None


def run(config: Config) -> dict[str, Any]:
    """Train, write ``out``, and return what the last line prints."""
    from accelerate import Accelerator

    # Without this, several processes on a machine that has only CPUs would each train alone.
    accelerator = Accelerator(cpu=not torch.accelerator.is_available())
    teacher, tokenizer = load_model(config.teacher), load_tokenizer(config.teacher)
    if config.student is not None and tokenizer is not None:
        from slmlab.distill.vocabulary import check_same_tokenizer

        own = load_tokenizer(config.student)
        if own is not None:
            check_same_tokenizer(own, tokenizer)
    ids, mask = read_rows(config, tokenizer)
    out = Path(config.out)
    distiller = Distiller(
        build_student(config, teacher, ids),
        teacher,
        ids,
        mask,
        method=build_method(config),
        checkpoint=out.with_name(out.name + "-checkpoint.safetensors"),
        checkpoint_every=config.checkpoint_every,
        accelerator=accelerator,
        **config.settings,
    )
    history = distiller.train()
    if accelerator.is_main_process:
        if isinstance(distiller.student, Decoder):
            save_decoder(distiller.student, out, torch.float32)
        else:
            distiller.student.save_pretrained(out)  # type: ignore[operator]
        if tokenizer is not None:
            tokenizer.save_pretrained(out)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return {
        "out": str(out),
        "steps": history.step,
        "tokens": history.tokens,
        "loss": history.losses[-1],
        "processes": accelerator.num_processes,
        "main": accelerator.is_main_process,
    }


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, 1 for bad input, 2 for a wrong call, 130 for an interrupt."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) != 1 or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    # What a launcher or a batch system sends; a run stops as at Ctrl-C, with its state kept.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        facts = run(Config.read(arguments[0]))
    except (ValueError, TypeError, FloatingPointError) as error:
        print(f"slmlab.distill: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("slmlab.distill: interrupted; start it again to go on", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)
    if facts.pop("main"):
        print(json.dumps(facts))
    return 0
