"""Kills at random moments lose nothing; `python -m tests.kills --kills 100 --patients 60` makes more of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kills import HEAD, survive


@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    tally = survive(tmp_path, patients=8, kills=20, seed=1)
    print(HEAD, tally.line(), sep="\n")
    assert tally.kills.total() >= 20
    assert tally.sound
