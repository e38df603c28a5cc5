from __future__ import annotations

import math

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from slmlab.measure import Score, bits_per_byte, score_text

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_tokenizer(**special: str) -> PreTrainedTokenizerFast:
    """One token a byte, plus whatever special tokens are named."""
    vocabulary = {symbol: i for i, symbol in enumerate(BYTES)}
    for token in dict.fromkeys(special.values()):
        vocabulary[token] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def uniform(vocabulary: int):
    return lambda ids: torch.zeros(*ids.shape, vocabulary)


def test_every_byte_is_paid_for_and_counted():
    text = "héllo \N{SNOWMAN}"
    result = score_text(uniform(257), byte_tokenizer(bos_token="<s>"), text, window=4, stride=2)
    assert result.text_bytes == len(text.encode()) == 10
    assert result.tokens == 10
    assert result.bits_per_byte == pytest.approx(math.log2(257))
    assert result.bytes_per_token == 1


def test_the_end_token_or_a_given_id_stands_in_for_a_missing_start():
    assert bits_per_byte(uniform(257), byte_tokenizer(eos_token="</s>"), "abc") == pytest.approx(
        math.log2(257)
    )
    assert bits_per_byte(uniform(256), byte_tokenizer(), "abc", prefix_id=0) == pytest.approx(8)
    with pytest.raises(ValueError, match="prefix_id"):
        bits_per_byte(uniform(256), byte_tokenizer(), "abc")


def test_the_prefix_is_read_before_the_text():
    seen = []

    def model(ids):
        seen.append(ids[0].tolist())
        return torch.zeros(*ids.shape, 258)

    tokenizer = byte_tokenizer(bos_token="<s>", eos_token="</s>")
    score_text(model, tokenizer, "ab")
    assert seen == [[256, BYTES.index("a")]]


def test_unknown_tokens_and_empty_texts_are_refused():
    tokenizer = byte_tokenizer(bos_token="<s>", unk_token="<unk>")
    with pytest.raises(ValueError, match="unknown to the tokenizer"):
        bits_per_byte(uniform(258), tokenizer, "a<unk>b")
    with pytest.raises(ValueError, match="empty"):
        bits_per_byte(uniform(258), tokenizer, "")
    with pytest.raises(TypeError, match="text must be a str"):
        bits_per_byte(uniform(258), tokenizer, b"bytes")  # type: ignore[arg-type]


def test_conversion_of_the_published_question():
    # Interview question 30: 2.30 nats a token at 4.2 bytes a token: ppl 9.97, 0.79 bits/byte.
    result = Score(nll_nats=2300.0, tokens=1000, windows=1, window=2, stride=1, minimum_context=1)
    assert result.perplexity == pytest.approx(9.97, abs=0.005)
    assert result.bits_per_byte(4200) == pytest.approx(0.79, abs=0.005)
    assert result.bits_per_token == pytest.approx(2.3 / math.log(2))
    with pytest.raises(ValueError, match="text_bytes"):
        result.bits_per_byte(0)
