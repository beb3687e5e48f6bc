"""``caffe.Detector``: scores of windows in images (R-CNN, Girshick et al. 2014)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from .classifier import ImageNet
from .io import load_image, resize_image


class Detector(ImageNet):
    """Scores windows of images with a net from ``model_file`` and ``pretrained_file``.

    ``context_pad`` is how many pixels around the window, as the net sees it, are context; what lies
    outside the image is filled with the mean. The other arguments are those of the
    :class:`.io.Transformer`.
    """

    def __init__(
        self,
        model_file: str | os.PathLike[str],
        pretrained_file: str | os.PathLike[str] | None,
        mean: np.ndarray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(model_file, pretrained_file, mean, input_scale, raw_scale, channel_swap)
        self.configure_crop(context_pad)

    def detect_windows(
        self, images_windows: Iterable[tuple[str, Sequence[Sequence[float]]]]
    ) -> list[dict[str, Any]]:
        """Scores of windows (ymin, xmin, ymax, xmax) of image files.

        Takes pairs of a file name and its windows; returns one dict a window with ``window``,
        ``prediction`` and ``filename``.
        """
        crops: list[np.ndarray] = []
        found: list[dict[str, Any]] = []
        for filename, windows in images_windows:
            image = load_image(filename)
            for window in windows:
                crops.append(self.crop(image, np.asarray(window)))
                found.append({"window": window, "filename": filename})
        for detection, prediction in zip(found, self.predict_prepared(crops), strict=True):
            detection["prediction"] = prediction
        return found

    def detect_selective_search(self, image_fnames: Sequence[str]) -> list[dict[str, Any]]:
        """Scores of the windows that Selective Search proposes.

        Needs the package selective_search_ijcv_with_python, which needs MATLAB; ImportError without
        it.
        """
        import selective_search_ijcv_with_python as selective_search

        paths = [os.path.abspath(name) for name in image_fnames]
        windows = selective_search.get_windows(paths, cmd="selective_search_rcnn")
        return self.detect_windows(zip(paths, windows, strict=True))

    def crop(self, im: np.ndarray, window: np.ndarray) -> np.ndarray:
        """The window (ymin, xmin, ymax, xmax) of an (H, W, K) image, with its context if there is
        some, in the size of the net's input then."""
        window = np.asarray(window)
        if not self.context_pad:
            top, left, bottom, right = (int(edge) for edge in window)
            return im[top:bottom, left:right]
        size = int(self.crop_dims[0])  # the net's input is a square
        box = self._with_context(window, size)
        scale = size / (box[2:] - box[:2] + 1)
        pad = np.round(np.maximum(0, -box[:2]) * scale).astype(int)
        limits = np.tile(im.shape[:2], 2)
        inside = np.clip(box, 0, limits).astype(int)
        extent = np.round((inside[2:] - inside[:2] + 1) * scale).astype(int)
        extent = np.minimum(extent, size - pad)
        part = im[inside[0] : inside[2], inside[1] : inside[3]]
        result = np.ones(self.crop_dims, np.float32) * self.crop_mean
        result[pad[0] : pad[0] + extent[0], pad[1] : pad[1] + extent[1]] = resize_image(
            part, extent
        )
        return result.astype(np.float32)

    def _with_context(self, window: np.ndarray, size: int) -> np.ndarray:
        """The window grown about its centre so that context_pad pixels of ``size`` are context."""
        assert self.context_pad
        half = (window[2:] - window[:2] + 1) / 2
        centre = window[:2] + half
        half = half * size / (size - 2 * self.context_pad)
        return np.round(np.concatenate([centre - half, centre + half]))

    def configure_crop(self, context_pad: int | None) -> None:
        """Set the context, and from the net's input the size and mean of crops, as images are."""
        name = self.inputs[0]
        order = np.argsort(self.transformer.transpose[name])
        self.crop_dims = np.array(self.blobs[name].shape[1:])[order]
        self.context_pad = context_pad
        self.crop_mean = np.zeros(tuple(self.crop_dims), np.float32)
        mean = self.transformer.mean.get(name)
        if context_pad and mean is not None:
            mean = np.asarray(mean, np.float32)
            if name in self.transformer.channel_swap:
                mean = mean[np.argsort(self.transformer.channel_swap[name])]
            mean = mean.transpose(order)
            self.crop_mean = mean / self.transformer.raw_scale.get(name, 1.0)
