"""From what a user names (a zoo model, a prototxt, a snapshot) to a net that takes images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from ...layers.data.prefetched import PrefetchedSource
from ...layers.data.preprocessing import BGR, of_layer
from ...layers.data.transform import Picture
from ...layers.imports import import_named
from ...layers.registry import find
from ...model_zoo import index, published_names, zoo
from ...netdef.blueprint import load_definition
from ...netdef.deploy import deploy
from ...netdef.state import State, effective_layers
from ...netdef.weights import recorded
from ...proto.caffe_pb2 import TEST, LayerParameter, NetParameter, Preprocessing
from ...proto.errors import ConfigError, LayerError, SnapshotError, nearest
from ...proto.files import read_net
from ...proto.mapped import mapped
from ...proto.positions import Document
from ...proto.recognise import HDF5, NET, PICKLE, SAFETENSORS, STATE, TEXT, ZIP, recognise
from ...proto.weights import read_net_message, read_preprocessing
from .overrides import Overrides

if TYPE_CHECKING:
    from ...netdef.torch_names import NameRules
    from ...proto.blocks import Settings

#: Gives the first image, for nets whose data layers leave its shape to their data.
FirstImage = Callable[[], Picture]


@dataclass(slots=True)
class Definition:
    """A net with an Input layer for images, and what is known about it.

    ``known`` says how images are prepared, and who says so, in the order of who is believed:
    ``certain`` of them before what the weights say, the others after it. ``record_order`` is the
    order of channels in raw records; ``rules`` say how the names of another program's weights
    become those of the net.
    """

    name: str
    net: NetParameter
    image: str
    weights: str | Path | None = None
    known: list[tuple[str, Preprocessing]] = field(default_factory=list)
    certain: int = 0
    classes: Sequence[str] = ()
    record_order: str = BGR
    rules: NameRules | None = None


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for: the model, and what to do differently.

    Images that are not ``stored`` in a database come as files of any size.
    """

    model: str
    weights: str = ""
    settings: Settings | None = None
    stages: Sequence[str] = ()
    overrides: Overrides = field(default_factory=Overrides)
    stored: bool = False


def define(wish: Wish, first_image: FirstImage) -> Definition:
    """The net that ``wish`` names; ConfigError or SnapshotError if it names none."""
    name = wish.model.removeprefix(f"{zoo.SCHEME}:")
    path = Path(wish.model)
    if not path.is_file():
        if name.partition("@")[0] in index.models() or wish.model != name:
            return _of_zoo(name, wish)
        raise ConfigError(
            f"{wish.model}: there is no such file, and no such model in the zoo"
            f"{nearest(name, index.models())} (see cortado zoo list)"
        )
    with mapped(path) as view:
        what = recognise(view)
    if what == TEXT:
        return _of_prototxt(path, wish, first_image)
    if what == NET:
        return _of_snapshot(path, wish, first_image)
    if what in (HDF5, SAFETENSORS, ZIP, PICKLE):
        raise ConfigError(
            f"{path}: holds weights without their net; name the net's prototxt and give these as "
            f"--weights {path}"
        )
    hint = "; name the .caffemodel beside it" if what == STATE else ""
    raise SnapshotError(f"{path}: must be a prototxt or a .caffemodel, but is {what}{hint}")


def _of_zoo(name: str, wish: Wish) -> Definition:
    model, chosen = index.split_name(name)
    weights: str | Path = _weights(wish) or f"{zoo.SCHEME}:{name}"
    way = model.preprocessing
    if isinstance(weights, str):  # a name: perhaps that of another model's weights
        named, chosen = index.split_name(weights.partition(":")[2])
        way = named.find_weights(chosen).preprocessing
    net = zoo.deployed(model)
    return Definition(
        name, net, zoo.INPUT, weights, [("the zoo", way.to_message(zoo.INPUT))], 0,
        zoo.class_names(model.name), rules=published_names.rules(model),
    )  # fmt: skip


def _weights(wish: Wish) -> str | Path | None:
    """A path, because a comma belongs to the file's name here; or a name such as zoo:lenet."""
    from ...proto import schemes

    if not wish.weights:
        return None
    return wish.weights if schemes.opener_of(wish.weights) else Path(wish.weights)


def _of_prototxt(path: Path, wish: Wish, first_image: FirstImage) -> Definition:
    document = read_net(path, wish.settings)
    weights = _weights(wish)
    if weights is None:
        raise ConfigError(f"{path}: --weights FILE is needed: a prototxt holds none")
    sizes = {} if wish.stored else {each.blob: each for each in recorded(weights)}
    found = _with_input(document, wish, first_image, sizes=sizes)
    found.weights = weights
    return found


def _of_snapshot(path: Path, wish: Wish, first_image: FirstImage) -> Definition:
    message = read_net_message(path)
    for layer in message.layer:  # they were chosen for a phase, which no longer matters
        del layer.include[:], layer.exclude[:]
        layer.ClearField("phase")
    known = {each.blob: each for each in read_preprocessing(path)}
    found = _with_input(load_definition(message), wish, first_image, known)
    found.weights = _weights(wish) or path
    found.name = str(path)
    return found


def _with_input(
    document: Document[NetParameter],
    wish: Wish,
    first_image: FirstImage,
    records: Mapping[str, Preprocessing] = MappingProxyType({}),
    sizes: Mapping[str, Preprocessing] = MappingProxyType({}),
) -> Definition:
    """The net without its data layers, losses and accuracies, as ``cortado test`` chooses layers.

    ``records`` are believed by their blob. Otherwise the shape of its images is what the data layer
    makes of images of the size that ``sizes`` records, or of the first image.
    """
    import_named(document)
    shapes: dict[str, tuple[int, ...]] = {}
    known: list[tuple[str, Preprocessing]] = []
    order = BGR
    for layer in _image_layers(document, wish.stages):
        blob = layer.top[0]
        order = layer.transform_param.channel_order
        record = records.get(blob)
        if record is None:
            record = _described(layer, wish.overrides, sizes.get(blob), first_image)
            known.append((f"the data layer {layer.name!r}", record))
        # The flags may cut out another size; the net then gets that.
        record = wish.overrides.apply(record)
        shapes[blob] = (1, record.channels, record.height, record.width)
    net = deploy(document, shapes, wish.stages)
    net.preprocessing.extend(records.values())
    for layer in net.layer:
        if layer.type == "Input" and layer.top[0] in records:
            layer.ClearField("transform_param")  # the record knows better what became of it
    image = _image_input(net)
    known = [(who, each) for who, each in known if each.blob == image]
    return Definition(net.name, net, image, known=known, certain=len(known), record_order=order)


def _image_layers(document: Document[NetParameter], stages: Sequence[str]) -> list[LayerParameter]:
    """The layers that read images from databases or files in the phase TEST."""
    specs = effective_layers(document, State(TEST, stages=frozenset(stages)), [])
    found = []
    for spec in specs:
        try:
            is_source = issubclass(find(spec.message.type), PrefetchedSource)
        except LayerError:
            continue  # reported when the net is built
        if is_source and spec.message.top:
            found.append(spec.message)
    return found


def _described(
    layer: LayerParameter,
    overrides: Overrides,
    trained: Preprocessing | None,
    first_image: FirstImage,
) -> Preprocessing:
    """What the data layer does, to images like those that were ``trained`` on if that is recorded,
    else to the first one."""
    plain = LayerParameter()
    plain.CopyFrom(layer)
    overrides.silence(plain)
    if trained is not None:
        shape, order = _size_trained(trained), trained.channel_order
    else:
        first = first_image()
        # Decoded images are BGR, whatever is said of raw records.
        shape, order = first.shape, BGR if first.interleaved else ""
    try:
        record = of_layer(plain, shape, order)
    except LayerError as error:
        raise ConfigError(f"layer {layer.name!r}: {error}") from None
    if trained is not None and not (record.resize_side or record.resize_height):
        record.image_height, record.image_width = trained.image_height, trained.image_width
    return record


def _size_trained(trained: Preprocessing) -> tuple[int, ...]:
    """The shape of an image of the training; where they had several sizes, of one that fits."""
    if trained.image_height:
        return trained.channels, trained.image_height, trained.image_width
    if trained.HasField("mean_image"):
        return tuple(trained.mean_image.shape.dim)
    return trained.channels, trained.height, trained.width


def _image_input(net: NetParameter) -> str:
    """The only input of the net, which must take images."""
    inputs = [top for layer in net.layer if layer.type == "Input" for top in layer.top]
    if len(inputs) != 1:
        listed = ", ".join(inputs) or "none"
        raise ConfigError(f"net {net.name!r}: must have one input, images, but has {listed}")
    return inputs[0]
