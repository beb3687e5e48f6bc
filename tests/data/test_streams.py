"""How batches come to a GPU, as it is asked for: streams, events and page-locked memory."""

from __future__ import annotations

import numpy as np
import torch

from cortado.layers.data.buffers import BufferPool, uploaded
from cortado.layers.data.dummy_data import DummyData
from cortado.layers.data.labels import Labels
from cortado.layers.data.pipeline import Job, Pipeline, Position
from cortado.layers.data.prefetched import _received
from cortado.layers.data.transform import Picture, Transform
from cortado.layers.fillers import named
from support.fake_cuda import DEVICE, Log, cuda  # noqa: F401


class OneImage:
    """A sampler with one image."""

    def take(self, count: int) -> Job[int]:
        numbers = np.arange(count)
        return Job(list(range(count)), numbers, numbers, numbers, Position())

    def read(self, sample: int) -> tuple[Picture, int]:
        return Picture(np.zeros((3, 8, 8), np.uint8)), 1

    def describe(self, sample: int) -> str:
        return str(sample)

    key = describe


def pipeline() -> Pipeline[int]:
    return Pipeline(
        OneImage(),
        Transform(0, crop_size=6, mean_values=[1.0]),
        batch_size=2,
        shape=(3, 6, 6),
        seed=1,
        device=DEVICE,
        pool=BufferPool(spare=2),
        as_bytes=True,
        varies=False,
        labels=Labels(),
        skip_bad=False,
    )


def test_a_batch_is_made_in_a_stream_of_its_own_that_training_waits_for(cuda: Log) -> None:  # noqa: F811
    made = pipeline()
    ready = made.load(made.plan())
    # The host's buffer is used again when load is over, so the copy from it must be.
    assert cuda == ["event in own of cuda:1", "host waits for event"]
    assert all(top.device == DEVICE for top in ready.tops)
    assert ready.tops[0].dtype == torch.float32
    cuda.clear()
    _received(ready, DEVICE)
    # What the allocator of the stream gave may be given again only when training is done with it.
    assert cuda == [
        "current of cuda:1 waits for event",
        "memory used in current of cuda:1",
        "memory used in current of cuda:1",
    ]


def test_batches_from_the_host_are_not_waited_for(cuda: Log) -> None:  # noqa: F811
    assert uploaded(torch.zeros(3), DEVICE).device == DEVICE
    assert cuda == ["pinned"]


def test_made_up_data_leave_the_generators_of_gpus_alone() -> None:
    source = DummyData([(2, 3)], [named("gaussian")], [False], "data")
    seed = torch.initial_seed()
    torch.default_generator.manual_seed(5)
    seeded: list[int] = []
    original, torch.manual_seed = torch.manual_seed, seeded.append  # type: ignore[assignment]
    try:
        first, second = (source.next(torch.device("cpu"))[0] for _ in range(2))
    finally:
        torch.manual_seed = original
        torch.default_generator.manual_seed(seed)
    assert not seeded
    assert not torch.equal(first, second)
