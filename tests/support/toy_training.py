"""Training a small net by hand, to see that it learns."""

from collections.abc import Callable

import torch
from torch import Tensor

from cortado.netdef import Net

Batch = dict[str, Tensor]


def train(net: Net, batch: Callable[[], Batch], iterations: int, rate: float) -> list[float]:
    """The loss of each iteration, by Adam at a learning rate that falls to 0."""
    parameters = [param.tensor for param in net.params if param.learnable]
    optimizer = torch.optim.Adam(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    losses = []
    for _ in range(iterations):
        optimizer.zero_grad()
        net(**batch())
        net.loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(net.loss.item())
    return losses
