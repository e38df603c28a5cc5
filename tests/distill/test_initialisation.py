"""Students cut out of their teachers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Qwen2Config

from slmlab.distill.forward import logits_and_states, logits_of
from slmlab.distill.initialisation import (
    block_influence,
    depth_pruned,
    evenly_spaced_layers,
    loss_increase,
    student_from_layers,
)
from slmlab.kv import ContiguousCache
from slmlab.models import Decoder, ModelConfig
from tests.distill.pairs import decoder, llama, rows, sizes, weights

IDS = rows(4, 12)


def windowed() -> object:
    torch.manual_seed(0)
    config = Qwen2Config(**sizes(4), use_sliding_window=True, sliding_window=4, max_window_layers=2)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def windowed_decoder() -> Decoder:
    torch.manual_seed(0)
    config = Qwen2Config(**sizes(4), use_sliding_window=True, sliding_window=4, max_window_layers=2)
    return Decoder(ModelConfig.from_hf(config)).eval()


MODELS = {
    "decoder": lambda: decoder(layers=4),
    "llama": lambda: llama(layers=4).eval(),
    "windowed": windowed,
    "windowed-decoder": windowed_decoder,
}


def layers_of(model):
    return (model if isinstance(model, Decoder) else model.model).layers


class Nothing(nn.Module):
    """A layer that changes nothing, whatever it is called with."""

    attention_type = "full_attention"

    def forward(self, x, *arguments, **options):
        return x


def skipping(model, gone):
    """The oracle of a cut: the whole model, its other layers made the identity."""
    whole = copy.deepcopy(model)
    for place in gone:
        layers_of(whole)[place] = Nothing()
    return whole


def test_every_second_layer_as_distilbert():
    assert evenly_spaced_layers(12, 6) == [0, 2, 4, 6, 8, 10]
    assert evenly_spaced_layers(6, 2) == [0, 3]
    assert evenly_spaced_layers(5, 5) == [0, 1, 2, 3, 4]
    assert evenly_spaced_layers(7, 3) == [0, 2, 4]
    with pytest.raises(ValueError, match="exceeds"):
        evenly_spaced_layers(2, 3)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("keep", ([0, 1, 2, 3], [0, 2], [1, 3], [3]))
def test_a_student_is_the_teacher_without_its_other_layers(name, keep):
    teacher = MODELS[name]()
    before = weights(teacher)
    student = student_from_layers(teacher, keep)
    gone = [i for i in range(4) if i not in keep]
    with torch.no_grad():
        expected = logits_of(skipping(teacher, gone), IDS)
        torch.testing.assert_close(logits_of(student, IDS), expected, rtol=0, atol=1e-5)
    assert student.config.num_hidden_layers == len(keep)
    assert all(p.requires_grad for p in student.parameters())
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    assert torch.equal(weights(teacher), before) and len(layers_of(teacher)) == 4


@pytest.mark.parametrize("name", MODELS)
def test_a_student_generates_with_a_cache_of_its_own_size(name):
    student = student_from_layers(MODELS[name](), [1, 3]).eval()
    with torch.no_grad():
        whole = logits_of(student, IDS)
        if isinstance(student, Decoder):
            cache = ContiguousCache(student.config, batch=4, max_length=12)
            parts = [student(IDS[:, :5], cache), student(IDS[:, 5:], cache)]
        else:
            first = student(IDS[:, :5], use_cache=True)
            parts = [
                first.logits,
                student(IDS[:, 5:], past_key_values=first.past_key_values).logits,
            ]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)


def test_a_tied_head_stays_tied():
    student = student_from_layers(decoder(layers=3), [0])
    assert student.lm_head.weight is student.embed_tokens.weight


@pytest.mark.parametrize("name", MODELS)
def test_block_influence_is_one_minus_the_cosine_of_hidden_states(name):
    model = MODELS[name]()
    found = block_influence(model, IDS)
    with torch.no_grad():
        states = logits_and_states(model, IDS)[1]
    # The last state of a model has passed the final norm: layer 3's output is not among them.
    for layer in range(3):
        cosine = nn.functional.cosine_similarity(states[layer], states[layer + 1], dim=-1)
        assert float(found[layer]) == pytest.approx(1 - float(cosine.mean()), abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_loss_increase_is_that_of_leaving_one_layer_out(name):
    model = MODELS[name]()
    found = loss_increase(model, IDS)

    def loss(of):
        with torch.no_grad():
            logits = logits_of(of, IDS)[:, :-1].flatten(0, 1)
        return float(nn.functional.cross_entropy(logits, IDS[:, 1:].flatten()))

    for layer in range(4):
        expected = loss(skipping(model, [layer])) - loss(model)
        assert float(found[layer]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("importance", ("block_influence", "loss"))
@pytest.mark.parametrize("name", ("decoder", "llama"))
def test_a_layer_that_does_nothing_is_the_one_dropped(name, importance):
    """A cut must leave the function as it was where the cut layers were the identity."""
    teacher = MODELS[name]()
    with torch.no_grad():
        for layer in layers_of(teacher):
            for leaf in ("self_attn.o_proj.weight", "mlp.down_proj.weight"):
                layer.get_parameter(leaf).mul_(20.0)
        for place in (1, 2):
            for leaf in ("self_attn.o_proj.weight", "mlp.down_proj.weight"):
                layers_of(teacher)[place].get_parameter(leaf).zero_()
    if importance == "loss":
        # The loss may fall when a random layer goes: text that the teacher itself finds likely.
        text = logits_of(teacher, IDS).argmax(-1)
        student = depth_pruned(teacher, 3, text, "loss")
        assert student.config.num_hidden_layers == 3
        ranked = loss_increase(teacher, text)
        assert float(ranked[1]) == pytest.approx(0, abs=1e-6) == float(ranked[2])
        return
    student = depth_pruned(teacher, 2, IDS, importance)
    torch.testing.assert_close(logits_of(student, IDS), logits_of(teacher, IDS), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("keep", "says"),
    (([], "at least one"), ([0, 0], "ascending"), ([1, 0], "ascending"), ([4], "0 .. 3")),
)
def test_bad_layers_are_named(keep, says):
    with pytest.raises(ValueError, match=says):
        student_from_layers(decoder(layers=4), keep)


def test_bad_input_is_named():
    teacher = decoder(layers=2)
    with pytest.raises(TypeError, match="Linear"):
        student_from_layers(nn.Linear(2, 2), [0])
    with pytest.raises(ValueError, match="layers=3 exceeds"):
        depth_pruned(teacher, 3, IDS)
    with pytest.raises(ValueError, match="block_influence, loss"):
        depth_pruned(teacher, 1, IDS, "magnitude")
    with pytest.raises(ValueError, match="calibration"):
        depth_pruned(teacher, 1, IDS[0, 0])
    with pytest.raises(ValueError, match="one layer"):
        loss_increase(decoder(layers=1), IDS)
