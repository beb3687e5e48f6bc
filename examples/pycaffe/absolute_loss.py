"""A loss written in Python: the mean absolute difference of its two bottoms."""

import caffe
import numpy as np


class AbsoluteLoss(caffe.Layer):
    """Bottoms: prediction and target, of one shape. Top: the mean of |prediction - target|."""

    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise ValueError(f"AbsoluteLoss needs two bottoms, got {len(bottom)}")

    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            raise ValueError("prediction and target must have as many elements")
        self.difference = np.zeros_like(bottom[0].data)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.difference[...] = bottom[0].data - bottom[1].data.reshape(bottom[0].data.shape)
        top[0].data[...] = np.abs(self.difference).mean()

    def backward(self, top, propagate_down, bottom):
        for index, sign in enumerate((1, -1)):
            if propagate_down[index]:
                gradient = sign * np.sign(self.difference) / bottom[index].count
                bottom[index].diff[...] = (top[0].diff * gradient).reshape(bottom[index].shape)
