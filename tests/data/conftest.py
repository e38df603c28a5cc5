"""The standard library as a corpus, read once: it takes seconds."""

from __future__ import annotations

import pytest

from slmlab.data.corpus import STANDARD_LIBRARY, Corpus, read_corpus


@pytest.fixture(scope="session")
def standard_library() -> dict[str, Corpus]:
    return {split: read_corpus(split, (STANDARD_LIBRARY,)) for split in ("training", "evaluation")}
