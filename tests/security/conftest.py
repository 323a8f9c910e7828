"""What takes long to start begins with the first test where one process runs them all: 20 of 80 s were waiting."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import forkserver

import pytest

import tests.ranks  # noqa: F401  says what the fork server loads
from tests.security.watched import Seen, watched


@pytest.fixture(scope="session")
def watching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[Seen]]:
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(watched, tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="session")
def seen(watching: Future[Seen]) -> Seen:
    return watching.result()


@pytest.fixture(scope="session", autouse=True)
def early(request: pytest.FixtureRequest) -> None:
    wanted = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    if "PYTEST_XDIST_WORKER" not in os.environ and "seen" in wanted:
        forkserver.ensure_running()
        request.getfixturevalue("watching")
