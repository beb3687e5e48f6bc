"""Nets written in Python, the maps between their coordinates, and the messages' constants."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from google.protobuf import text_format

from cortado.proto import caffe_pb2
from cortado.tools import pycaffe as caffe
from cortado.tools.pycaffe import coord_map
from cortado.tools.pycaffe import layers as L
from cortado.tools.pycaffe import params as P


def text(net: caffe_pb2.NetParameter) -> str:
    return text_format.MessageToString(net, as_one_line=True)


def test_named_tops_fields_and_messages() -> None:
    n = caffe.NetSpec()
    n.data, n.label = L.DummyData(
        shape=[{"dim": [2, 3]}, {"dim": 2}], ntop=2, include={"phase": caffe.TRAIN}
    )
    n.ip = L.InnerProduct(
        n.data, num_output=np.int64(4), weight_filler={"type": "xavier"},
        param=[{"lr_mult": 1}, {"lr_mult": 2}],
    )  # fmt: skip
    n.relu = L.ReLU(n.ip, in_place=True)
    n["loss"] = L.SoftmaxWithLoss(n.relu, n.label, loss_weight=2, loss_param={"ignore_label": 1})
    wanted = text_format.Parse(
        """
        layer { name: "data" type: "DummyData" top: "data" top: "label" include { phase: TRAIN }
          dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" param { lr_mult: 1 }
          param { lr_mult: 2 }
          inner_product_param { num_output: 4 weight_filler { type: "xavier" } } }
        layer { name: "relu" type: "ReLU" bottom: "ip" top: "ip" }
        layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss"
          loss_weight: 2 loss_param { ignore_label: 1 } }
        """,
        caffe_pb2.NetParameter(),
    )
    assert text(n.to_proto()) == text(wanted)
    assert n["loss"] is n.loss
    assert isinstance(copy.copy(n), caffe.NetSpec)


def test_numbered_tops_and_layers_without_tops() -> None:
    data = L.Input(shape={"dim": [1, 2]})
    top = L.InnerProduct(L.InnerProduct(data, num_output=3), num_output=2)
    names = [layer.name for layer in top.to_proto().layer]
    assert names == ["Input1", "InnerProduct1", "InnerProduct2"]
    assert text(caffe.to_proto(top)) == text(top.to_proto())
    n = caffe.NetSpec()
    n.a, n.b = L.Input(shape={"dim": 1}, ntop=2)
    n.nothing = L.Silence(n.a, n.b, ntop=0)
    layer = n.to_proto().layer[1]
    assert (layer.name, list(layer.bottom), list(layer.top)) == ("nothing", ["a", "b"], [])


def test_constants() -> None:
    assert P.Pooling.AVE == caffe_pb2.PoolingParameter.AVE
    assert P.Data.LMDB == caffe_pb2.DataParameter.LMDB
    assert caffe.proto.caffe_pb2.V1LayerParameter.LayerType.Value("CONVOLUTION") == 4
    pooling = L.Pooling(L.Input(), pool=P.Pooling.AVE, kernel_size=2).to_proto().layer[1]
    assert pooling.pooling_param.pool == caffe_pb2.PoolingParameter.AVE
    for name in ("Data", "Convolution", "Python"):
        assert name in caffe.layer_type_list()


def test_mistakes() -> None:
    data = L.Input(ntop=2)
    with pytest.raises(TypeError, match=r"^ReLU input 0 is not a Top \(type is <class 'tuple'>\)"):
        L.ReLU(data)
    with pytest.raises(AttributeError, match="num_outputs"):
        L.InnerProduct(data[0], num_outputs=3).to_proto()
    with pytest.raises(AttributeError):
        _ = P.Nothing.MAX


def test_crop_aligns_a_deconvolution_with_its_input() -> None:
    data = L.Input(shape={"dim": [1, 1, 100, 100]})
    conv = L.Convolution(data, num_output=2, kernel_size=5, stride=2, pad=40)
    up = L.Deconvolution(conv, convolution_param={"num_output": 2, "kernel_size": 3, "stride": 2})
    top = coord_map.crop(up, data)
    assert top.fn.params["crop_param"] == {"axis": 2, "offset": [39]}
    axis, scale, shift = coord_map.coord_map_from_to(up, data)
    assert (axis, scale, shift) == (1, 1, -39)
    assert coord_map.compose(coord_map.IDENTITY, (1, 2, 3)) == (1, 2, 3)


def test_crop_refuses_what_does_not_align() -> None:
    data = L.Input(shape={"dim": [1, 1, 100, 100]})
    conv = L.Convolution(data, num_output=2, kernel_size=3, stride=2)
    with pytest.raises(AssertionError, match="scale mismatch"):
        coord_map.crop(conv, data)
    with pytest.raises(RuntimeError, match="connected"):
        coord_map.coord_map_from_to(L.InnerProduct(conv, num_output=2), data)
    with pytest.raises(coord_map.AxisMismatchException):
        coord_map.compose((1, 1, 0), (2, 1, 0))
