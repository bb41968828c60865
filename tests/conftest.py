"""What every test shares: where the real data lie."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data: ``PROGNOSIS_TEST_DATA``, else ``../shared/data`` beside the checkout.

    Without it the test is skipped, or fails where ``PROGNOSIS_REQUIRE_DATA`` is set, as in CI.
    """
    named = os.environ.get("PROGNOSIS_TEST_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        reason = f"real data not found at {folder}: set PROGNOSIS_TEST_DATA to its folder"
        if os.environ.get("PROGNOSIS_REQUIRE_DATA"):
            pytest.fail(reason)
        pytest.skip(reason)
    return folder
