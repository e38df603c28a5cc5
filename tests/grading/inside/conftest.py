"""One Python with torch loaded serves all tests of the worker in this folder."""

from collections.abc import Iterator

import pytest

from tests.grading.inside.host import Host


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    server = Host(tmp_path_factory.mktemp("host"))
    yield server
    server.close()
