"""A data layer written in Python: pictures with several shapes in them, and which ones."""

import json

import caffe
import numpy as np

#: What a picture may show, any number of them at once.
SHAPES = ("row", "column", "square", "diagonal")
SIZE = 12


def picture(random, present):
    """A (1, 12, 12) picture with the shapes whose flag is set, and some noise."""
    image = 0.1 * random.randn(SIZE, SIZE)
    row, column = random.randint(0, SIZE, 2)
    if present[0]:
        image[row] += 1
    if present[1]:
        image[:, column] += 1
    if present[2]:
        top, left = random.randint(0, SIZE - 4, 2)
        image[top : top + 4, left : left + 4] += 1
    if present[3]:
        image[np.arange(SIZE), np.arange(SIZE)] += 1
    return image[None]


class ShapeData(caffe.Layer):
    """Tops: pictures (batch, 1, 12, 12) and flags (batch, 4), 0 or 1.

    ``param_str`` is JSON: ``batch_size`` and ``seed``.
    """

    def setup(self, bottom, top):
        settings = json.loads(self.param_str)
        self.batch_size = int(settings["batch_size"])
        self.random = np.random.RandomState(settings.get("seed", 0))
        top[0].reshape(self.batch_size, 1, SIZE, SIZE)
        top[1].reshape(self.batch_size, len(SHAPES))

    def reshape(self, bottom, top):
        """The batch keeps its size."""

    def forward(self, bottom, top):
        for index in range(self.batch_size):
            present = self.random.randint(0, 2, len(SHAPES))
            top[0].data[index] = picture(self.random, present)
            top[1].data[index] = present

    def backward(self, top, propagate_down, bottom):
        """Data get no gradient."""
