"""What every test shares: where the real data lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: ``PROGNOSIS_TEST_DATA``, else ``../shared/data`` beside the checkout."""
    named = os.environ.get("PROGNOSIS_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}: set PROGNOSIS_TEST_DATA to its folder")
    return folder
