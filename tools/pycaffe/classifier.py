"""``caffe.Classifier``: class probabilities of images."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from ...layers.base import TEST
from .io import oversample as ten_crops
from .io import resize_image
from .net import Net
from .transformer import Transformer


class ImageNet(Net):
    """A net in the TEST phase whose first input takes images; ``transformer`` prepares them."""

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        pretrained_file: str | os.PathLike[str] | None,
        mean: np.ndarray | None,
        input_scale: float | None,
        raw_scale: float | None,
        channel_swap: Sequence[int] | None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        name = self.inputs[0]
        self.transformer = Transformer({name: self.blobs[name].shape})
        self.transformer.set_transpose(name, (2, 0, 1))
        if mean is not None:
            self.transformer.set_mean(name, mean)
        if input_scale is not None:
            self.transformer.set_input_scale(name, input_scale)
        if raw_scale is not None:
            self.transformer.set_raw_scale(name, raw_scale)
        if channel_swap is not None:
            self.transformer.set_channel_swap(name, channel_swap)

    def predict_prepared(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """The first output for (H, W, K) images, each prepared for the net."""
        name = self.inputs[0]
        prepared = np.stack([self.transformer.preprocess(name, image) for image in images])
        found: np.ndarray = self.forward_all(None, **{name: prepared})[self.outputs[0]]
        return found


class Classifier(ImageNet):
    """Classifies images with a net from ``model_file`` and weights from ``pretrained_file``.

    ``image_dims`` is the size (height, width) that images are brought to before they are cropped,
    by default the net's. The other arguments are those of the :class:`.io.Transformer`.
    """

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        pretrained_file: str | os.PathLike[str] | None,
        image_dims: Sequence[int] | None = None,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, pretrained_file, mean, input_scale, raw_scale, channel_swap)
        self.crop_dims: tuple[int, ...] = self.blobs[self.inputs[0]].shape[2:]
        self.image_dims = self.crop_dims if image_dims is None else tuple(image_dims)

    def predict(self, inputs: Sequence[np.ndarray], oversample: bool = True) -> np.ndarray:
        """Probabilities (N, classes) of N images (H, W, K).

        With ``oversample`` the mean over ten crops of each, otherwise of its centre.
        """
        images = [resize_image(image, self.image_dims) for image in inputs]
        if oversample:
            found = self.predict_prepared(list(ten_crops(images, self.crop_dims)))
            return found.reshape(len(images), 10, -1).mean(1)
        top, left = (
            int(size / 2 - crop / 2)
            for size, crop in zip(self.image_dims, self.crop_dims, strict=True)
        )
        height, width = self.crop_dims
        return self.predict_prepared(
            [image[top : top + height, left : left + width] for image in images]
        )
