"""Every test here finds the fake topic, and no installed one changes what it sees."""

from collections.abc import Iterator

import pytest

from slmlab.checking import registered
from tests.checking.fake_topic import EXERCISES


@pytest.fixture(autouse=True)
def fake_topic() -> Iterator[None]:
    with registered("fake", EXERCISES):
        yield
