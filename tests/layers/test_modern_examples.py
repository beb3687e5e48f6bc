"""The example nets of modern layers learn a toy task in seconds."""

from pathlib import Path

import torch

import cortado
from cortado.netdef import Net
from support.toy_training import Batch, train

EXAMPLES = Path(cortado.__file__).parent / "examples"


def test_transformer_learns_to_turn_sequences_around() -> None:
    torch.manual_seed(1)

    def batch() -> Batch:
        tokens = torch.randint(10, (32, 8)).float()
        return {"data": tokens, "label": tokens.flip(1)}

    path = EXAMPLES / "transformer" / "encoder.prototxt"
    net = Net(path)
    train(net, batch, 250, 0.003)
    tested = Net(path, "TEST", share_with=net)
    assert tested(**batch())["accuracy"] > 0.95


def discs() -> Batch:
    """Noisy planes with a bright disc each, and where it is."""
    rows = torch.arange(32.0)
    centre = torch.randint(8, 24, (8, 2, 1, 1)).float()
    radius = torch.randint(4, 8, (8, 1, 1)).float()
    away = (rows[:, None] - centre[:, 0]) ** 2 + (rows - centre[:, 1]) ** 2
    label = (away < radius**2).float()
    return {"data": (label + 0.7 * torch.randn(8, 32, 32)).unsqueeze(1), "label": label}


def test_unet_learns_to_find_discs() -> None:
    torch.manual_seed(2)
    path = EXAMPLES / "unet" / "unet.prototxt"
    net = Net(path)
    train(net, discs, 60, 0.01)
    tested = Net(path, "TEST", share_with=net)(**discs())
    assert tested["accuracy"] > 0.97
    assert tested["dice"] < 0.15


def test_bidirectional_net_learns_to_write_down_words() -> None:
    torch.manual_seed(3)
    sounds = torch.randn(5, 6)

    def batch() -> Batch:
        """Words of 3 or 4 symbols, each heard for some steps, with silence after the last."""
        data, label = 0.3 * torch.randn(24, 16, 6), torch.full((16, 4), -1.0)
        for item in range(16):
            begin = int(torch.randint(3, ()))
            for place in range(3 + item % 2):
                symbol = int(torch.randint(1, 5, ()))
                steps = int(torch.randint(3, 5, ()))
                data[begin : begin + steps, item] += sounds[symbol]
                label[item, place] = symbol
                begin += steps + 1
        return {"data": data, "label": label}

    net = Net(EXAMPLES / "speech" / "bidirectional.prototxt")
    net.keep_blobs = True
    losses = train(net, batch, 150, 0.02)
    assert losses[0] > 5 > 0.5 > losses[-1]
    fed = batch()
    net.eval()
    net(**fed)
    best = net.blobs["scores"].argmax(2)
    right = 0
    for item in range(16):
        heard = torch.unique_consecutive(best[:, item])
        right += heard[heard > 0].tolist() == [s for s in fed["label"][item].tolist() if s > 0]
    assert right >= 13
