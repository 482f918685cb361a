"""A fresh catalog, and rows to put into it."""

from pathlib import Path

import pytest

from biliupd.catalog.database import Catalog


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path / "catalog.db")
