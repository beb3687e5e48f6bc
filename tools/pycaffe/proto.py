"""``caffe.proto``: the messages and enums of prototxt files."""

from __future__ import annotations

from ...proto import caffe_pb2

__all__ = ["caffe_pb2"]
