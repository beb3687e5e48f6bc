"""Feature caching: the frozen layers at the start of the nets run once for each record.

Their tops are kept on disk, and the rest of each net is trained and tested on them, record by
record in the same order. Snapshots, resuming and everything else see the nets as they always are.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...layers.batch_norm import BatchNorm
from ...layers.data.features import Features, StoredFeatures
from ...layers.source import NumberedSource
from ...netdef import Net, trunk
from ...netdef.steps import SourceStep, Step
from ...netdef.trunk import Trunk
from ...proto.caffe_pb2 import SolverParameter
from ...proto.errors import ConfigError
from ...proto.folders import Cache
from .. import events, feature_cache
from .base import Hook

if TYPE_CHECKING:
    from ..solver import Solver

#: Seconds between two reports of progress.
_REPORT = 5.0


@dataclass(frozen=True, slots=True)
class _Shortened:
    """A net while its features are looked for: its name in the log, and what may change in it."""

    net: Net
    name: str
    changing: Collection[int]


class CachedFeatures(Hook):
    """Lets each net run from kept features, which are made first where they are missing.

    ConfigError if the train net has no frozen layers to leave out, or if its records are not the
    same in every epoch. A test net of which this is so runs as a whole.
    """

    def __init__(self, parameters: SolverParameter) -> None:
        folder = parameters.feature_cache
        self.folder = Path(folder) if folder else Cache.FEATURES.make()
        self.variants = max(1, parameters.feature_variants)
        self.allows_variation = parameters.HasField("feature_variants")
        #: The data sources that features stand in for, by net.
        self._sources: dict[Net, list[SourceStep]] = {}

    def before_train(self, solver: Solver) -> None:
        for net in (solver.net, *solver.test_nets):
            # Weights may have been changed since the last training.
            net.run_from(self._sources.setdefault(net, net.sources), ())
        moving = trunk.memory(solver.updater.moving())
        left_out = self._shorten(solver, _Shortened(solver.net, "train net", moving))
        # What else the train net has may change while it trains, statistics among it.
        rest = [step for step in solver.net.steps if id(step) not in left_out]
        changing = trunk.memory(trunk.blobs_of(rest))
        for index, net in enumerate(solver.test_nets):
            if solver.stopped_by is not None:
                return
            name = f"test net #{index}"
            try:
                self._shorten(solver, _Shortened(net, name, changing))
            except ConfigError as error:
                solver.emit(events.Notice(f"The {name} runs as a whole: {error}"))

    def _shorten(self, solver: Solver, this: _Shortened) -> set[int]:
        """Let a net run from features; the ids of the steps left out. ConfigError if none are."""
        usable: list[Trunk] = []
        reasons: list[str] = []
        for part in trunk.find(this.net, this.changing):
            reason = self._reason_against(part)
            if reason:
                reasons.append(reason)
            else:
                usable.append(part)
        if not usable:
            reasons += [
                f"layer {step.name!r} ({step.type}): {step.source.unnumbered}"
                for step in this.net.sources
                if not isinstance(step.source, NumberedSource)
            ]
            raise ConfigError(f"cache_features: {'; '.join(reasons)}")
        sources = {id(step): step for step in this.net.sources}
        left_out: list[Step] = []
        for part in usable:
            found = self._features(solver, this, part)
            if found is None:
                return set()
            original = part.source
            part, features = found
            tops = tuple(part.tops)
            source = StoredFeatures(part.numbered, features, tops, self._variants_of(part))
            sources[id(original)] = replace(original, source=source, tops=tops)
            left_out += part.steps
        this.net.run_from(list(sources.values()), left_out)
        return {id(step) for step in left_out}

    def _reason_against(self, part: Trunk) -> str:
        """Why the trunk of a source cannot be left out, or nothing."""
        source = part.source.name
        if not part.has_parameters:
            if part.end is None:
                return f"no layer with parameters reads the blobs of layer {source!r}"
            return (
                f"layer {part.end.name!r} learns and reads the blobs of layer {source!r}: nothing "
                "before it is frozen (--freeze, or a param_rule with lr_mult: 0)"
            )
        variation = part.numbered.variation()
        if variation is None or (self.allows_variation and not variation.batch):
            return ""
        remedy = "turn it off"
        if not variation.batch:
            remedy += (
                ", or keep what the first epochs make of each record: feature_variants: 4 (or so)"
            )
        return (
            f"{variation.field} of layer {source!r} makes the records of every epoch differ; "
            f"{remedy}"
        )

    def _variants_of(self, part: Trunk) -> int:
        return self.variants if part.numbered.variation() is not None else 1

    def _features(
        self, solver: Solver, this: _Shortened, part: Trunk
    ) -> tuple[Trunk, Features] | None:
        """The trunk as it can really be left out, and its features; None if a stop was asked for.

        ConfigError if a BatchNorm in it keeps statistics.
        """
        variants = self._variants_of(part)
        folder = self.folder / feature_cache.digest(this.net, part, variants, solver.seed)
        features = Features.open(folder)
        if features is not None:
            refused = features.notes
        else:
            refused = feature_cache.probe(this.net, part, solver.parameters.threads)
        if refused:
            self._tell(solver, this, part, refused)
            found = trunk.find(this.net, this.changing, refused)
            part = next(each for each in found if each.source is part.source)
            if not part.has_parameters:
                raise ConfigError(f"cache_features: nothing of the {this.name} can be kept")
        if features is None:
            features = feature_cache.make(
                this.net,
                part,
                folder,
                refused,
                variants=variants,
                threads=solver.parameters.threads,
                progress=_Report(solver, this.name),
            )
        if features is not None:
            message = (
                f"The {this.name} runs from kept features ({', '.join(part.tops)}): "
                f"{len(part.steps)} of {len(this.net.steps)} layers are left out; "
                f"{features.bytes:,} bytes in {folder}"
            )
            solver.emit(events.Notice(message))
        return None if features is None else (part, features)

    def _tell(self, solver: Solver, this: _Shortened, part: Trunk, refused: dict[str, str]) -> None:
        """Say which frozen layers have to run all the same."""
        for step in part.steps:
            if step.name not in refused:
                continue
            problem = f"layer {step.name!r} ({step.type}) is frozen, but it {refused[step.name]}"
            if isinstance(step.layer, BatchNorm):
                raise ConfigError(
                    f"cache_features: {problem}; name it in --freeze, or set its "
                    "batch_norm_param.use_global_stats: true, to use those that it came with"
                )
            message = f"Features of the {this.name} end there: {problem}"
            solver.emit(events.Notice(message))


class _Report:
    """Tells how far a run over the records is, every few seconds, and obeys signals."""

    def __init__(self, solver: Solver, name: str) -> None:
        self._solver = solver
        self._name = name
        self._began = self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> bool:
        now = time.monotonic()
        if done == total or (done and now - self._told >= _REPORT):
            self._told = now
            left = (now - self._began) / done * (total - done)
            self._solver.emit(events.CachingFeatures(self._name, done, total, left))
        self._solver.obey_requests()
        return self._solver.stopped_by is None
