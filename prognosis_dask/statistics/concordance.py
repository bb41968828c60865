"""Harrell's concordance index, with the pairs that it rests on."""

from __future__ import annotations

from dataclasses import dataclass

from prognosis_dask.statistics.endpoint import BoolArray, FloatArray


@dataclass(frozen=True)
class Concordance:
    """How often the higher risk met the earlier event.

    Attributes
    ----------
    comparable
        Pairs in which one is known to have had the event before the other.
    concordant, tied
        Of these, the pairs whose risks are in that order, and those whose risks are equal (they count half).
    """

    comparable: int
    concordant: int
    tied: int

    @property
    def c_index(self) -> float:
        """0.5 for a useless risk, 1 for a perfect one; NaN where no pair is comparable."""
        return (self.concordant + 0.5 * self.tied) / self.comparable if self.comparable else float("nan")


def concordance(time: FloatArray, event: BoolArray, risk: FloatArray) -> Concordance:
    """Harrell's C (JAMA 247, 1982) of a risk: higher is worse, 1 is best.

    Two events at the same time are not comparable; one censored at the time of an event outlived it (as in lifelines).

    Parameters
    ----------
    time, event, risk
        Shape (cases,) each. Memory grows with its square: 1 byte x cases².
    """
    before = comparable_pairs(time, event)
    return Concordance(
        int(before.sum()),
        int((before & (risk[:, None] > risk)).sum()),
        int((before & (risk[:, None] == risk)).sum()),
    )


def comparable_pairs(time: FloatArray, event: BoolArray) -> BoolArray:
    """Element (i, j) tells that i is known to have had the event before j; shape (cases, cases)."""
    before: BoolArray = event[:, None] & ((time[:, None] < time) | ((time[:, None] == time) & ~event))
    return before
