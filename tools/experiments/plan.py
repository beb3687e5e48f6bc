"""The numbers of a new experiment: batches, iterations, rates."""

from __future__ import annotations

from dataclasses import dataclass

#: Batches of tests are at most this large, and not below the next unless the set is.
TEST_BATCH, LEAST_TEST_BATCH = 64, 8


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a net learns and how often it is tested: ``epochs`` over ``train`` images."""

    train: int
    test: int
    batch: int
    epochs: int
    fine_tune: bool

    @property
    def test_batch(self) -> int:
        """The largest batch that parts the test set evenly; an odd set gets a last batch that runs
        over."""
        sizes = range(min(TEST_BATCH, self.test), 0, -1)
        even = next(size for size in sizes if self.test % size == 0)
        return even if even >= LEAST_TEST_BATCH else min(TEST_BATCH, self.test)

    @property
    def epoch(self) -> int:
        """Iterations of one epoch."""
        return max(1, round(self.train / self.batch))

    def solver(self, net: str, prefix: str, weights: str) -> str:
        """The solver's prototxt."""
        rate = 0.001 if self.fine_tune else 0.02
        lines = [
            f'net: "{net}"',
            f"test_iter: {-(-self.test // self.test_batch)}  # the whole test set",
            f"test_interval: {self.epoch}  # once an epoch",
            f"base_lr: {rate}",
            'lr_policy: "poly"  # falls smoothly to 0 at max_iter',
            "power: 1",
            "momentum: 0.9",
            "weight_decay: 0.0005",
            f"display: {max(1, self.epoch // 5)}",
            f"max_iter: {self.epoch * self.epochs}  # {self.epochs} epochs",
            f"snapshot: {self.epoch * max(1, self.epochs // 2)}",
            f'snapshot_prefix: "{prefix}"',
            "random_seed: 1",
        ]
        if weights:
            lines.append(f'weights: "{weights}"')
        return "\n".join(lines) + "\n"
