"""The study of one domain: its text, its adapters against peft, and what it counts."""

from __future__ import annotations

import json
from itertools import islice

import pytest
import torch

from benchmarks import _lora_checks, lora_domain
from benchmarks._lora_checks import check_adapters
from benchmarks._lora_scores import Exam, decode_ratio
from benchmarks._lora_text import TOOLS, commands, held_out, training_rows
from benchmarks._lora_ways import (
    RANK,
    Tuned,
    as_decoder,
    best_layers,
    merged,
    tiny_in_transformers,
    trained_parameters,
    with_lora,
)
from benchmarks.lora_domain import FULL, WAYS, summary
from slmlab import load
from slmlab.data.grammar import tool_calls, tools
from slmlab.distill import student_from_layers
from slmlab.generation import LanguageModel
from slmlab.models import Decoder


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return load("tiny")


def test_a_short_study(capsys: pytest.CaptureFixture[str], lm: LanguageModel) -> None:
    lora_domain.main(["--short"])
    measured = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert measured["threads"] == 1 and set(measured["ways"]) == set(WAYS)
    assert measured["adapters"]["fresh"] == 0 < measured["adapters"]["merged"] < 1e-4
    runs = {way: found["runs"] for way, found in measured["ways"].items()}
    for way, of_way in runs.items():
        (run,) = of_way
        found = measured["ways"][way]["summary"]
        assert set(found) == set(run) - {"seed"}
        assert all(
            row["n"] == 1 and row["mean"] == pytest.approx(run[metric], abs=1e-4)
            for metric, row in found.items()
        )
        assert run["decode_over_tiny"] > 0 and run["outside_bits_per_byte"] > 0
        # What is stored and kept for training follows from what is trained, and from no more.
        assert run["stored_bytes"] == 2 * run["trained_parameters"]
        assert run["optimizer_bytes"] == 8 * run["trained_parameters"]
    whole = sum(p.numel() for p in lm.model.parameters())
    trained = {way: of_way[0]["trained_parameters"] for way, of_way in runs.items()}
    assert trained["tiny"] == 0 and trained["full"] == whole
    config = lm.model.config
    widths = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.head_dim
    keys = config.num_key_value_heads * config.head_dim
    sides = 2 * (widths[0] + queries) + 2 * (widths[0] + keys) + 3 * sum(widths)
    assert trained["lora"] == RANK * config.num_hidden_layers * sides
    for searched in measured["learning_rates"].values():
        losses = searched["losses"]
        assert losses[str(searched["chosen"])] == min(losses.values())
    (keep,) = measured["student_layers"]
    cut = student_from_layers(lm.model, keep)
    assert trained["student"] == sum(p.numel() for p in cut.parameters())
    assert runs["student"][0]["teacher_cpu_seconds"] == runs["lora"][0]["cpu_seconds"] > 0


def test_adapters_that_start_elsewhere_or_merge_wrongly_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = [torch.arange(4, 30)]
    found = check_adapters(texts)
    assert found["fresh"] == 0 and found["merged"] < 1e-4 < found["moved"]

    def not_merged(adapted: object) -> Decoder:
        return Decoder.from_pretrained("tiny")

    monkeypatch.setattr(_lora_checks, "merged", not_merged)
    with pytest.raises(ValueError, match="merged adapters differ"):
        check_adapters(texts)

    def with_random_b(model: object, seed: int) -> object:
        adapted = with_lora(model, seed)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.01)
        return adapted

    monkeypatch.setattr(_lora_checks, "with_lora", with_random_b)
    with pytest.raises(ValueError, match="B must start at 0"):
        check_adapters(texts)


def test_only_adapters_learn_and_merging_nothing_gives_tiny_back(lm: LanguageModel) -> None:
    adapted = with_lora(tiny_in_transformers(), seed=0)
    learning = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert learning and all("lora_" in name for name in learning)
    assert trained_parameters(adapted) < 0.05 * sum(p.numel() for p in lm.model.parameters())
    back = merged(adapted).state_dict()
    for name, tensor in lm.model.state_dict().items():
        assert torch.equal(back[name], tensor), name
    assert torch.equal(
        as_decoder(tiny_in_transformers())(torch.arange(4, 30)[None]),
        lm.model(torch.arange(4, 30)[None]),
    )


def test_the_domain_is_new_and_its_splits_do_not_meet() -> None:
    assert not {tool.name for tool in TOOLS} & {tool.name for tool in tools.TOOLS}
    training = {command.text for command in islice(commands("training", 0), 3000)}
    held = held_out(FULL.held_out)
    assert len({command.text for command in held}) == FULL.held_out
    assert not training & {command.text for command in held}
    for tool in TOOLS:
        assert tool_calls.combinations("evaluation", tool), tool.name
        shown = set(tool_calls.combinations("training", tool))
        assert not shown & set(tool_calls.combinations("evaluation", tool))
    for command in held:
        call = json.loads(command.answer)
        (tool,) = (tool for tool in TOOLS if tool.name == call["tool"])
        assert list(call["arguments"]) == [name for name, _ in tool.arguments]


def test_rows_are_the_text_without_a_gap(lm: LanguageModel) -> None:
    rows = training_rows(lm.tokenizer, 5, 16, seed=1)
    assert rows.shape == (5, 17)
    assert torch.equal(rows[1:, 0], rows[:-1, -1])
    text = str(lm.tokenizer.decode(rows[:, 1:].flatten()))
    wanted = "".join(c.text + lm.tokenizer.eos_token for c in islice(commands("training", 1), 9))
    assert wanted.startswith(text) and rows[0, 0] == lm.tokenizer.eos_token_id
    assert not torch.equal(rows, training_rows(lm.tokenizer, 5, 16, seed=2))


def test_the_exam_tells_a_model_that_knows_the_answers(lm: LanguageModel) -> None:
    exam = Exam(lm.tokenizer, 4, 3, 300)
    answers = {command.prompt: command.answer for command in exam.commands}

    class Knows(LanguageModel):
        def generate(self, prompt: str, *_: object, **__: object) -> str:
            return answers[prompt]

    assert exam.of(lm)["domain_accuracy"] == 0  # it has never seen these tools
    assert exam.of(Knows(lm.model, lm.tokenizer))["domain_accuracy"] == 1


def test_the_shallow_student_keeps_the_layer_that_leaves_the_smallest_loss(
    lm: LanguageModel,
) -> None:
    rows = training_rows(lm.tokenizer, 4, 32, seed=0)
    losses = {}
    for other in range(1, lm.model.config.num_hidden_layers):
        cut = student_from_layers(lm.model, [0, other])
        with torch.no_grad():
            logits = cut(rows[:, :-1]).flatten(0, 1)
        losses[other] = float(torch.nn.functional.cross_entropy(logits, rows[:, 1:].flatten()))
    assert best_layers(lm.model, rows) == [0, min(losses, key=lambda other: losses[other])]
    assert decode_ratio(lm.model, lm.model, 2, repeats=1) > 0


def test_the_summary_has_mean_deviation_and_count() -> None:
    found = summary([{"seed": 0, "x": 1}, {"seed": 1, "x": 3}])
    assert found == {"x": {"mean": 2.0, "sd": pytest.approx(2**0.5, abs=1e-4), "n": 2}}
    assert summary([{"seed": 0, "x": 1}])["x"]["sd"] == 0
    assert Tuned(load("tiny").model, 10, 20, 0.0).optimizer_bytes == 80
