"""Which packed rows run side by side: with several processes, those of nearly equal cost.

Processes wait for one another in every pass, and attention is quadratic in a document: a full row of
one long document is a fifth more work than one of short ones (32B). Rows in random order keep eight
processes busy 93% of the time, rows in this order above 99.9% (assumed lengths, by FLOP).
"""

import random
from collections.abc import Iterator, Sequence

from longcot.flops import count_work
from longcot.memory import Setup
from longcot.shapes import Shapes


def count_costs(shapes: Shapes, setup: Setup, rows: Sequence[Sequence[int]]) -> list[float]:
    """FLOP of a training step over each packed row, given as its documents' tokens."""
    token = count_work(shapes, setup, 0).executed
    pair = count_work(shapes, setup, 1).executed - token  # the count is linear in the length
    return [token * sum(row) + pair * sum(n * n for n in row) for row in rows]


class Waves:
    """An epoch's order of rows, as a sampler: `width` in a row cost nearly the same.

    Rows sorted by cost are cut into waves, and the waves are shuffled, anew in every epoch; which rows
    share a wave changes too, as each is moved by up to one wave before the cut. Seed and epoch alone
    decide, so a resumed run finds its place. Rows that fill no wave are joined by their neighbours
    in cost, which then run twice in the epoch (accelerate repeats as many, but any).
    """

    def __init__(self, costs: Sequence[float], width: int, seed: int) -> None:
        self.width, self.seed, self.epoch = width, seed, 0
        self.sorted = sorted(range(len(costs)), key=costs.__getitem__, reverse=True)

    def set_epoch(self, epoch: int) -> None:
        """Told by accelerate's loader before an epoch begins."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.sorted) // self.width) * self.width

    def __iter__(self) -> Iterator[int]:
        draw = random.Random(f"{self.seed} {self.epoch}")
        places = [
            (place + self.width * draw.random(), row) for place, row in enumerate(self.sorted)
        ]
        order = [row for _, row in sorted(places)]
        order = (order * self.width)[: max(self.width, len(order))]
        starts = [*range(0, len(order) - self.width, self.width), len(order) - self.width]
        draw.shuffle(starts)
        return (row for start in starts for row in order[start : start + self.width])
