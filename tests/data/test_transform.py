"""The transform against Caffe's formula written out element by element."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cortado.layers.base import TEST, TRAIN
from cortado.layers.data.counter_random import below, permutation, word, words
from cortado.layers.data.transform import Draw, Picture, Transform, Window


def expected(pixels, window, size, mean, scale):  # type: ignore[no-untyped-def]
    """(pixel - mean) * scale in float32, and the mirror last."""
    rows = slice(window.row, window.row + size[0])
    columns = slice(window.column, window.column + size[1])
    values = pixels[:, rows, columns].astype(np.float32)
    if mean is not None:
        values = values - np.broadcast_to(mean, pixels.shape)[:, rows, columns]
    values = values * np.float32(scale)
    return values[:, :, ::-1] if window.mirror else values


@settings(max_examples=80, deadline=None)
@given(
    channels=st.sampled_from([1, 2, 3, 4, 5]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    crop=st.integers(0, 9),
    mean=st.sampled_from(["none", "image", "one", "each"]),
    scale=st.sampled_from([1.0, 0.017]),
    phase=st.sampled_from([TRAIN, TEST]),
    interleaved=st.booleans(),
    floats=st.booleans(),
    row=st.integers(0, 2**64 - 1),
    mirror=st.booleans(),
)
def test_agrees_with_the_formula(
    channels, height, width, crop, mean, scale, phase, interleaved, floats, row, mirror
) -> None:  # type: ignore[no-untyped-def]
    crop = min(crop, height, width)
    generator = np.random.default_rng(row % 1000)
    pixels = generator.integers(0, 256, (channels, height, width), np.uint8)
    if floats:
        interleaved = False
        pixels = generator.standard_normal(pixels.shape, np.float32)
    image = generator.random(pixels.shape, np.float32) * 200
    values = (image[:, 0, 0] if mean == "each" else image[0, 0, :1]).tolist()
    transform = Transform(
        phase,
        scale=scale,
        mirror=True,
        crop_size=crop,
        mean_image=image if mean == "image" else None,
        mean_values=values if mean in ("one", "each") else (),
    )
    means = {
        "none": None,
        "image": image,
        "one": np.float32(values[0]),
        "each": np.array(values, np.float32).reshape(-1, 1, 1),
    }
    given_pixels = pixels.transpose(1, 2, 0).copy() if interleaved else pixels
    picture = Picture(given_pixels, interleaved)
    assert picture.shape == pixels.shape
    top_shape = transform.top_shape(picture.shape)
    window = transform.window(Draw(row, row ^ 2**63, mirror), height, width)
    if phase == TEST and crop:
        assert (window.row, window.column) == ((height - crop) // 2, (width - crop) // 2)
    wanted = expected(pixels, window, top_shape[1:], means[mean], scale)
    out = np.full(top_shape, np.nan, np.float32)
    transform.write(picture, window, out)
    np.testing.assert_array_equal(out, wanted)
    if not floats:
        # The way of a CUDA device: bytes first, the arithmetic in bulk.
        content = np.zeros((2, *top_shape), np.uint8)
        for sample in content:
            transform.write_bytes(picture, window, sample)
        finished = transform.finish(torch.from_numpy(content), [window, window])
        np.testing.assert_array_equal(finished.numpy(), np.stack([wanted, wanted]))


def test_a_column_of_four_pixels_is_no_scalar() -> None:
    pixels = np.array([[[10], [20], [30], [40]]], np.uint8)
    out = np.empty(pixels.shape, np.float32)
    Transform(TEST, mean_values=[5.0]).write(Picture(pixels), Window(0, 0, False), out)
    assert out.ravel().tolist() == [5, 15, 25, 35]


def test_random_words_depend_on_each_counter() -> None:
    drawn = {word(seed, purpose, index) for seed in range(5) for purpose in range(5)
             for index in range(40)}  # fmt: skip
    assert len(drawn) == 1000
    assert words(7, 1, np.arange(5)).tolist() == [word(7, 1, index) for index in range(5)]


def test_random_words_are_uniform() -> None:
    drawn = [below(each, 10) for each in words(0, 3, np.arange(20_000)).tolist()]
    counts = np.bincount(drawn, minlength=10)
    assert len(counts) == 10
    # Nine degrees of freedom: 99.99 % of fair samples lie below 34.
    assert ((counts - 2000) ** 2 / 2000).sum() < 34


def test_permutations_are_permutations_and_differ() -> None:
    first, second = permutation(50, 1, 0), permutation(50, 1, 1)
    assert sorted(first.tolist()) == list(range(50))
    assert first.tolist() != second.tolist()
