"""Cached features: same order, same weights, same resumption, and what cannot be cached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cortado.layers.data.lmdb_writer import LmdbWriter
from cortado.proto.caffe_pb2 import Datum
from cortado.proto.errors import ConfigError, DataError, NumericError
from cortado.solvers import Solver, diagnosis, events
from cortado.solvers.hooks import Hook
from support.feature_runs import HEAD, RECORDS, TRUNK, Keys, solver_for, trained
from support.runs import everything, identical


def write_database(path: Path, sides: Sequence[int]) -> None:
    random = np.random.default_rng(0)
    with LmdbWriter(path) as writer:
        for number, side in enumerate(sides):
            pixels = random.integers(0, 256, (3, side, side), np.uint8).tobytes()
            datum = Datum(channels=3, height=side, width=side, data=pixels, label=number % 3)
            writer.put(b"%08d" % number, datum.SerializeToString())


@pytest.fixture
def database(tmp_path: Path) -> Path:
    write_database(tmp_path / "images", [8] * RECORDS)
    return tmp_path / "images"


def source(database: Path, fields: str = "", transform: str = "", phase: str = "TRAIN") -> str:
    return f"""
      layer {{ name: "images" type: "Data" top: "data" top: "label" include {{ phase: {phase} }}
        transform_param {{ {transform or "scale: 0.01"} }}
        data_param {{ source: "{database}" batch_size: 4 backend: LMDB {fields} }} }}"""


@pytest.mark.parametrize("order", ["", "shuffle: true", "rand_skip: 7", "balanced: true"])
def test_order_weights_and_tests_are_those_of_a_run_without(
    order: str, tmp_path: Path, database: Path
) -> None:
    data = source(database, order) + source(database, phase="TEST")
    text = "momentum: 0.9 weight_decay: 0.01 test_iter: 4 test_interval: 4 max_iter: 9"
    keys, weights, tests = trained(solver_for(tmp_path / "whole", data, text, cached=False))
    cached = solver_for(tmp_path / "cached", data, text)
    cached_keys, cached_weights, cached_tests = trained(cached)
    assert cached_keys == keys
    assert [step.name for step in cached.net.running] == ["drop", "ip", "loss"]
    assert [step.name for step in cached.test_nets[0].running] == ["ip", "accuracy", "loss"]
    # Batches of other records may be multiplied in another order.
    assert all(map(torch.allclose, cached_weights, weights))
    assert cached_tests == pytest.approx(tests, rel=1e-5)


@pytest.mark.gpu
def test_order_and_weights_on_a_gpu(tmp_path: Path, database: Path) -> None:
    data = source(database, "shuffle: true", "scale: 0.01 mirror: true")
    text = "max_iter: 13 feature_variants: 4"
    whole = solver_for(tmp_path / "whole", data, text, cached=False, device="cuda")
    keys, weights, _ = trained(whole)
    cached_keys, cached_weights, _ = trained(
        solver_for(tmp_path / "cached", data, text, device="cuda")
    )
    assert cached_keys == keys
    for one, other in zip(cached_weights, weights, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


def test_batches_as_they_were_give_the_same_bits(tmp_path: Path) -> None:
    write_database(tmp_path / "whole_batches", [8] * 12)
    data = source(tmp_path / "whole_batches")
    _, weights, _ = trained(solver_for(tmp_path / "whole", data, cached=False))
    _, cached_weights, _ = trained(solver_for(tmp_path / "cached", data))
    assert identical(cached_weights, weights)


def test_images_of_a_list_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lines = []
    for number in range(RECORDS):
        name = f"{number % 5}.png"  # some images come twice, with other labels
        cv2.imwrite(str(tmp_path / name), random.integers(0, 256, (8, 8, 3), np.uint8))
        lines.append(f"{name} {number % 3}\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    data = f"""layer {{ name: "images" type: "ImageData" top: "data" top: "label"
      transform_param {{ scale: 0.01 }}
      image_data_param {{ source: "{tmp_path}/list.txt" root_folder: "{tmp_path}/"
        batch_size: 4 shuffle: true }} }}"""
    keys, weights, _ = trained(solver_for(tmp_path / "whole", data, cached=False))
    cached_keys, cached_weights, _ = trained(solver_for(tmp_path / "cached", data))
    assert cached_keys == keys
    assert all(map(torch.allclose, cached_weights, weights))


@pytest.mark.parametrize("cut", [3, 4])
def test_resuming_is_exact_and_goes_both_ways(cut: int, tmp_path: Path, database: Path) -> None:
    data = source(database, "shuffle: true")
    _, expected, _ = trained(solver_for(tmp_path / "whole", data))
    with solver_for(tmp_path / "cut", data) as first:
        first.step(cut)
        first.snapshot()
    state = tmp_path / "cut" / f"run_iter_{cut}.solverstate"
    for cached in (True, False):
        with solver_for(tmp_path / "cut", data, cached=cached) as second:
            keys = Keys()
            second.hooks.append(keys)
            second.solve(state)
            if cached:
                assert identical(everything(second), expected)
            assert all(map(torch.allclose, everything(second), expected))
    # The snapshots are those of the whole net.
    layers = {layer.name for layer in second.net.layer_blobs()}
    assert layers == {"conv", "norm", "scale", "ip"}


def test_features_are_made_once_and_never_used_for_anything_else(
    tmp_path: Path, database: Path
) -> None:
    def folders(**changes) -> set[str]:
        with solver_for(tmp_path / "run", **{"data": source(database), **changes}) as solver:
            solver.step(1)
        return {each.name for each in (tmp_path / "features").iterdir()}

    first = folders()
    assert len(first) == 1
    assert folders() == first
    assert folders(text="base_lr: 0.5") == first
    assert folders(data=source(database, "shuffle: true")) == first
    wider = source(database, transform="scale: 0.02")
    assert len(folders(data=wider)) == 2
    assert len(folders(middle=TRUNK.replace("AVE", "MAX") + HEAD)) == 3
    assert len(folders(text="random_seed: 9")) == 4  # other weights
    database.rename(tmp_path / "elsewhere")
    write_database(database, [8] * RECORDS)
    assert len(folders()) == 5  # a database of the same name and size


def test_random_augmentation_is_refused_or_kept_in_variants(tmp_path: Path, database: Path) -> None:
    data = source(database, "shuffle: true", "scale: 0.01 mirror: true crop_size: 6")
    with (
        solver_for(tmp_path / "refused", data) as solver,
        pytest.raises(ConfigError, match=r"transform_param.mirror of layer 'images'"),
    ):
        solver.step(1)
    with (
        solver_for(tmp_path / "crop", source(database, "", "crop_size: 6")) as solver,
        pytest.raises(ConfigError, match=r"transform_param.crop_size.*feature_variants"),
    ):
        solver.step(1)
    # Four epochs, of which each has its variant: just what they would have seen.
    text = "max_iter: 13"
    keys, weights, _ = trained(solver_for(tmp_path / "whole", data, text, cached=False))
    variants = text + " feature_variants: 4"
    cached_keys, cached_weights, _ = trained(solver_for(tmp_path / "cached", data, variants))
    assert cached_keys == keys
    assert all(map(torch.allclose, cached_weights, weights))


def test_a_crop_of_the_whole_image_is_not_random(tmp_path: Path, database: Path) -> None:
    with solver_for(tmp_path / "run", source(database, "", "crop_size: 8")) as solver:
        solver.step(1)
    write_database(tmp_path / "mixed", [8] * RECORDS + [9])
    with (
        solver_for(tmp_path / "run", source(tmp_path / "mixed", "", "crop_size: 8")) as solver,
        pytest.raises(DataError, match=r"cannot be kept"),
    ):
        solver.step(1)
    assert not list((tmp_path / "features").glob(".*"))


def notices(solver: Solver) -> Iterator[str]:
    seen: list[events.Event] = []
    solver.listeners.append(seen.append)
    with solver:
        solver.step(1)
    return (event.message for event in seen if isinstance(event, events.Notice))


def test_what_ends_the_trunk_is_named(tmp_path: Path, database: Path) -> None:
    data = source(database)
    with (
        solver_for(tmp_path / "run", data, frozen=["ip"]) as solver,
        pytest.raises(ConfigError, match=r"layer 'conv' learns and reads .* 'images'"),
    ):
        solver.step(1)
    rules = 'param_rule { pattern: "conv|norm|scale" lr_mult: 0 }'
    with solver_for(tmp_path / "run", data, rules, frozen=[]) as solver:
        before = solver.net.layer("norm").layer.scale_factor.clone()
        with pytest.raises(ConfigError, match=r"'norm' \(BatchNorm\) .* keeps statistics.*--free"):
            solver.step(1)
        assert torch.equal(solver.net.layer("norm").layer.scale_factor, before)
    told = list(notices(solver_for(tmp_path / "run", data)))
    assert "layer 'drop' (Dropout) is frozen, but it draws random numbers" in told[0]
    assert "(pool, label): 5 of 8 layers are left out" in told[1]
    # The second time this is known without trying.
    assert list(notices(solver_for(tmp_path / "run", data))) == told


MIXING = """
  layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
    convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "msra" } } }
  layer { name: "mixed" type: "Softmax" bottom: "conv" top: "mixed" softmax_param { axis: 0 } }
  layer { name: "frozen" type: "InnerProduct" bottom: "mixed" top: "pool"
    inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
"""


def test_layers_that_mix_records_run_every_time(tmp_path: Path, database: Path) -> None:
    solver = solver_for(tmp_path / "run", source(database), middle=MIXING + HEAD,
                        frozen=["conv", "frozen"])  # fmt: skip
    told = list(notices(solver))
    assert "layer 'mixed' (Softmax) is frozen, but it mixes the records of a batch" in told[0]
    assert [step.name for step in solver.net.running][:2] == ["mixed", "frozen"]


SHORTCUT = """
  layer { name: "first" type: "ReLU" bottom: "conv" top: "conv" }
  layer { name: "own" type: "InnerProduct" bottom: "conv" top: "own"
    inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
  layer { name: "second" type: "TanH" bottom: "conv" top: "conv" }
  layer { name: "flat" type: "InnerProduct" bottom: "conv" top: "flat"
    inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
  layer { name: "sum" type: "Eltwise" bottom: "own" bottom: "flat" top: "pool" }
"""


def test_a_blob_rewritten_in_place_is_kept_as_its_reader_needs_it(
    tmp_path: Path, database: Path
) -> None:
    conv = TRUNK[: TRUNK.index('  layer { name: "norm"')]
    middle = conv + SHORTCUT + HEAD
    arguments = {"data": source(database), "middle": middle, "frozen": ["conv", "flat"]}
    _, expected, _ = trained(solver_for(tmp_path / "whole", cached=False, **arguments))
    cached = solver_for(tmp_path / "cached", **arguments)
    _, weights, _ = trained(cached)
    assert [step.name for step in cached.net.running][:2] == ["own", "second"]
    assert all(map(torch.allclose, weights, expected))


def test_a_stop_while_features_are_made_leaves_nothing(tmp_path: Path, database: Path) -> None:
    solver = solver_for(tmp_path / "run", source(database))
    solver.hooks[0].obey = lambda solver: solver.stop("SIGINT")  # type: ignore[attr-defined]
    with solver:
        assert solver.solve().stopped_by == "SIGINT"
    assert not list((tmp_path / "features").iterdir())


def test_damaged_features_are_refused(tmp_path: Path, database: Path) -> None:
    with solver_for(tmp_path / "run", source(database)) as solver:
        solver.step(1)
    (folder,) = (tmp_path / "features").iterdir()
    (folder / "0.npy").write_bytes(b"\x93NUMPY")
    with (
        solver_for(tmp_path / "run", source(database)) as solver,
        pytest.raises(DataError, match=r"damaged.*delete the folder"),
    ):
        solver.step(1)


def test_nan_bundles_show_the_layers_that_ran(tmp_path: Path, database: Path) -> None:
    class Poison(Hook):
        def after_update(self, solver, iteration) -> None:
            solver.net.layer("ip").layer.weight.data.view(-1)[0] = np.nan

    with solver_for(tmp_path / "run", source(database)) as solver:
        solver.hooks.append(Poison())
        with pytest.raises(NumericError, match=r"ip\.weight"):
            solver.solve()
    bundle = tmp_path / "run" / "run_not_finite_iter_1"
    examination = diagnosis.replay(bundle)
    assert "its weights (ip.weight) are not finite" in examination.first
    assert [row.layer for row in examination.rows] == ["drop", "ip", "loss"]


def test_whole_batches_still_run_through_the_whole_net(tmp_path: Path, database: Path) -> None:
    with solver_for(tmp_path / "run", source(database)) as solver:
        whole = solver.net.next_batch()
        before = solver.net(**whole)
        solver.step(1)
        assert set(solver.net.next_batch()) == {"pool", "label"}
        solver.net.keep_blobs = True
        assert solver.net(**whole).keys() == before.keys()
        assert "conv" in solver.net.blobs
        solver.net(**solver.net.next_batch())
        assert "conv" not in solver.net.blobs


def test_two_sources_each_have_their_own_features(tmp_path: Path, database: Path) -> None:
    """Images of two databases go through one trunk; only the second one's labels are read."""
    write_database(tmp_path / "others", [8] * 7)
    other = source(tmp_path / "others", "shuffle: true")
    other = other.replace('"images" type', '"more" type').replace('"data"', '"data2"', 1)
    data = source(database).replace(' top: "label"', "") + other
    shared = 'param { name: "w" } param { name: "b" }'
    middle = f"""
      layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv" {shared}
        convolution_param {{ num_output: 4 kernel_size: 8 weight_filler {{ type: "msra" }} }} }}
      layer {{ name: "conv2" type: "Convolution" bottom: "data2" top: "conv2" {shared}
        convolution_param {{ num_output: 4 kernel_size: 8 weight_filler {{ type: "msra" }} }} }}
      layer {{ name: "sum" type: "Eltwise" bottom: "conv" bottom: "conv2" top: "pool" }}
    """
    arguments = {"data": data, "middle": middle + HEAD, "frozen": ["conv"]}
    keys, weights, _ = trained(solver_for(tmp_path / "whole", cached=False, **arguments))
    cached = solver_for(tmp_path / "cached", **arguments)
    cached_keys, cached_weights, _ = trained(cached)
    assert [step.name for step in cached.net.running] == ["sum", "drop", "ip", "loss"]
    assert cached_keys == keys
    assert all(map(torch.allclose, cached_weights, weights))
