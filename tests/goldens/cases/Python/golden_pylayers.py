"""Layers for the Python-layer golden cases (plain caffe.Layer API)."""

import json

import caffe
import numpy as np


class AffineByParamStr(caffe.Layer):
    """y = a*x + b with a, b from the JSON in param_str."""

    def setup(self, bottom, top):
        p = json.loads(self.param_str)
        self.a, self.b = p["a"], p["b"]

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.a * bottom[0].data + self.b

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            bottom[0].diff[...] = self.a * top[0].diff


class HuberLike(caffe.Layer):
    """scalar loss: sum(sqrt(1+(a-b)^2)-1)/N."""

    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise Exception("needs two inputs")

    def reshape(self, bottom, top):
        top[0].reshape(1)
        self.d = np.zeros_like(bottom[0].data, dtype=np.float32)

    def forward(self, bottom, top):
        self.d[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = (np.sqrt(1 + self.d**2) - 1).sum() / bottom[0].num

    def backward(self, top, propagate_down, bottom):
        g = self.d / np.sqrt(1 + self.d**2) / bottom[0].num * top[0].diff[0]
        for i, s in enumerate((1, -1)):
            if propagate_down[i]:
                bottom[i].diff[...] = s * g


class WithBlob(caffe.Layer):
    """y = x * w with one learned blob of shape (C,)."""

    def setup(self, bottom, top):
        self.blobs.add_blob(bottom[0].shape[1])
        self.blobs[0].data[...] = 1

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data * self.blobs[0].data[None, :]

    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum(0)
        if propagate_down[0]:
            bottom[0].diff[...] = top[0].diff * self.blobs[0].data[None, :]


class PhaseProbe(caffe.Layer):
    """outputs self.phase (0 train, 1 test)."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(1)

    def forward(self, bottom, top):
        top[0].data[...] = self.phase

    def backward(self, top, propagate_down, bottom):
        pass
