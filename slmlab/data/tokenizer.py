"""The byte-level BPE tokenizer of the embedded models.

Its kind is SmolLM2's: no normaliser, single digits, GPT-2's byte alphabet and splitting rule. Every
text encodes, and decodes to the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from slmlab.data.corpus import Corpus, Domain, read_corpus
from slmlab.data.grammar import documents, stream
from slmlab.data.special_tokens import END, SPECIAL_TOKENS

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

SMALLEST_VOCABULARY = len(SPECIAL_TOKENS) + 256
TRAINING_BYTES = {"docs": 4_000_000, "code": 2_500_000, "grammar": 1_500_000}

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{{ '<|endoftext|>' if message['role'] == 'assistant' else '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> PreTrainedTokenizerFast:
    """Train a tokenizer on `texts`: the same texts give the same tokenizer, byte for byte.

    Ids 0 to 3 are <|endoftext|> (end and padding), <|user|>, <|assistant|> and <|system|>, then
    come the 256 byte tokens, then the merges. No token is added to a text on its own accord.
    Raises ValueError where `vocab_size` leaves no room for the bytes or `texts` is empty,
    TypeError if `texts` is one string.
    """
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=train_bpe(texts, vocab_size),
        bos_token=END,
        eos_token=END,
        pad_token=END,
        additional_special_tokens=list(SPECIAL_TOKENS[1:]),
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def train_bpe(texts: Iterable[str], vocab_size: int = 2048) -> Tokenizer:
    """The byte-level BPE inside `train_tokenizer`, without transformers around it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if isinstance(texts, str):
        raise TypeError("texts is one string: pass a list of strings.")
    if vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(
            f"vocab_size is {vocab_size}: {len(SPECIAL_TOKENS)} special tokens and 256 bytes need "
            f"at least {SMALLEST_VOCABULARY}."
        )
    texts = list(texts)
    if not any(texts):
        raise ValueError("texts holds no text: pass at least one string that is not empty.")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer, length=len(texts))
    return tokenizer


def tokenizer_texts(
    corpus: Corpus | None = None, seed: int = 0, sizes: dict[str, int] | None = None
) -> list[str]:
    """A seeded sample of the training split: whole documents, up to `sizes` bytes a domain.

    `sizes` has the keys "docs", "code" and "grammar"; TRAINING_BYTES if absent.
    """
    corpus = corpus if corpus is not None else read_corpus()
    sizes = sizes if sizes is not None else TRAINING_BYTES
    if set(sizes) != set(TRAINING_BYTES):
        raise ValueError(f"sizes has keys {sorted(sizes)}: give {', '.join(TRAINING_BYTES)}.")
    domains: tuple[Domain, ...] = ("docs", "code")
    chosen: list[str] = []
    for domain in domains:
        domain_texts = corpus.texts(domain)
        rng = stream(f"tokenizer/{domain}", seed)
        keys = [rng.random() for _ in domain_texts]
        order = sorted(range(len(domain_texts)), key=keys.__getitem__)
        chosen += _take((domain_texts[index] for index in order), sizes[domain])
    samples = documents(seed, name="tokenizer/grammar")
    # Special tokens are never split, so merges learned inside them would be wasted.
    texts = (_without_special_tokens(sample.text) for sample in samples)
    return chosen + _take(texts, sizes["grammar"])


def _without_special_tokens(text: str) -> str:
    for token in SPECIAL_TOKENS:
        text = text.replace(token, "")
    return text


def _take(texts: Iterable[str], size: int) -> list[str]:
    """Texts from the front until `size` bytes are reached."""
    taken: list[str] = []
    left = size
    for text in texts:
        if left <= 0:
            break
        taken.append(text)
        left -= len(text.encode())
    return taken
