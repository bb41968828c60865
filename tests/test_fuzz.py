"""Damaged inputs end in a result or a problem; `python -m tests.fuzz --inputs 10000` tries more of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import KINDS, fuzz


def expect_no_fault(inputs: int, folder: Path, first_seed: int) -> None:
    outcomes, faults = fuzz(inputs, folder, first_seed)
    assert not faults, "\n".join(f"python -m tests.fuzz --inputs 1 --seed {f.seed}: {f.what}" for f in faults)
    for kind in KINDS:
        assert outcomes[f"{kind} taken"], f"every damaged {kind} is refused: the readers see nothing of it"
        assert outcomes[f"{kind} refused"], f"no damaged {kind} is refused: the damage does nothing"


def test_damaged_inputs_end_in_a_result_or_a_problem(tmp_path: Path) -> None:
    expect_no_fault(100, tmp_path, 0)


@pytest.mark.slow
def test_a_thousand_damaged_inputs_end_in_a_result_or_a_problem(tmp_path: Path) -> None:
    expect_no_fault(1000, tmp_path, 1000)
