"""Kills at random moments lose nothing; `python -m tests.kills --kills 100 --patients 60` makes more of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kills import HEAD, survive
from tests.object_server import ObjectServer


@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    totals = survive(tmp_path, patients=8, kills=20, seed=1)
    print(HEAD, totals.line(), sep="\n")
    assert totals.kills.total() >= 20
    assert totals.sound


@pytest.mark.slow
def test_kills_of_a_run_between_buckets_lose_nothing(
    object_server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROGNOSIS_CACHE", str(tmp_path / "cache"))
    totals = survive(tmp_path, patients=6, kills=6, seed=2, server=object_server)
    print(HEAD, totals.line(), sep="\n")
    assert totals.kills.total() >= 6
    assert totals.sound
