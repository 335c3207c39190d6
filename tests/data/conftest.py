"""What several tests of data share."""

from pathlib import Path

import pytest

from tests.data.shard_world import write_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space, 40 records, and their shards; tests copy what they change."""
    return write_world(tmp_path_factory.mktemp("shards"))
