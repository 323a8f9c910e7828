"""What every test of a card is given."""

from __future__ import annotations

import pytest

from tests.card import Card
from tests.card import card as found


@pytest.fixture
def card() -> Card:
    """The card; in a dry run the CPU in its place."""
    return found()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here needs a card."""
    for item in items:
        if "/gpu/" in str(item.path):
            item.add_marker(pytest.mark.gpu)
