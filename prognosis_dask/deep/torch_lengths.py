"""Clips of several lengths in one batch, each with the features that it has alone.

A batch is filled up behind its clips to one of a few lengths, so that a cohort needs few shapes and few batches are
half empty. What lies behind a clip's end has to be zero wherever a layer looks across frames, as the padding behind a
clip that is alone. It is zero at the start, and every layer with a bias makes it something else: it is cleared again.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor


@dataclass(frozen=True)
class Lengths:
    """How many of a batch's frames belong to each clip, at one of the network's resolutions in time.

    Attributes
    ----------
    own
        Per clip, ascending.
    behind
        (n, 1, T - own[0], 1, 1), true where a frame lies behind its clip's end; frames before ``own[0]`` never do.
    """

    own: tuple[int, ...]
    behind: Tensor

    @classmethod
    def of(cls, own: tuple[int, ...], frames: int, device: torch.device) -> Lengths:
        """Those of clips in a batch of so many frames."""
        number = torch.arange(own[0], frames)
        behind = number >= torch.tensor(own)[:, None]
        return cls(own, behind[:, None, :, None, None].to(device))

    def pooled(self, frames: int, *, padded: bool) -> Lengths:
        """Those behind a layer of stride 2 that leaves so many frames; without padding an odd last one is dropped."""
        own = tuple((n + padded) // 2 for n in self.own)
        return Lengths.of(own, frames, self.behind.device)

    def clear(self, x: Tensor) -> Tensor:
        """Put zeros behind each clip's end, in place: (n, channel, T, H, W)."""
        if self.behind.shape[2]:
            x[:, :, self.own[0] :].masked_fill_(self.behind, 0)
        return x

    def mean(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """The mean over each clip's own frames and over the plane: to (n, channel)."""
        total = self.clear(x).sum((2, 3, 4), dtype=dtype)
        return total / (torch.tensor(self.own, dtype=dtype)[:, None] * x.shape[3] * x.shape[4]).to(x.device)

    def groups(self) -> list[tuple[int, slice]]:
        """Each length that there is, and its rows."""
        rows, start = [], 0
        for length, same in groupby(self.own):
            stop = start + len(list(same))
            rows.append((length, slice(start, stop)))
            start = stop
        return rows
