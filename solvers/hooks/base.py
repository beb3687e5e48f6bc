"""What a hook is: something that happens beside the training loop, at fixed moments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

if TYPE_CHECKING:
    from ..loop import Iteration, Pass
    from ..solver import Solver


class Hook:
    """Base of all hooks; each method is one moment of a run, in the order they are listed here.

    Hooks act in the order of ``solver.hooks``. ``name`` is the key of a hook's state in a snapshot.
    """

    name: ClassVar[str] = ""

    def before_train(self, solver: Solver) -> None:
        """Training starts (or goes on after a restore)."""

    def before_step(self, solver: Solver) -> None:
        """An iteration is due; a stop requested here prevents it."""

    def after_pass(self, solver: Solver, made: Pass) -> bool:
        """One of the iter_size passes of an iteration is done; its gradients are added to those of
        the passes before. True makes it the last of its iteration."""
        return False

    def after_backward(self, solver: Solver, iteration: Iteration) -> None:
        """Loss, outputs and gradients of the iteration are there, on the device."""

    def before_update(self, solver: Solver, iteration: Iteration) -> None:
        """The learning rate is known (``iteration.rate``); the weights are still the old ones."""

    def after_update(self, solver: Solver, iteration: Iteration) -> None:
        """The update is made and counted in ``solver.iteration``."""

    def after_test(self, solver: Solver, index: int, outputs: dict[str, float]) -> None:
        """Test net ``index`` was tested; ``outputs`` has the mean of each of its output blobs."""

    def after_tests(self, solver: Solver) -> None:
        """All test nets were tested, with the weights as trained."""

    def after_train(self, solver: Solver) -> None:
        """The loop has ended, whether completed or stopped (not after an error)."""

    def finish(self, solver: Solver) -> None:
        """Training is complete: called last, and only if nothing stopped it."""

    def close(self, solver: Solver) -> None:
        """The run is over, even if by an error: release what is held."""

    def before_snapshot(self, solver: Solver) -> None:
        """A snapshot is about to be taken; an error raised here prevents it."""

    def further_weights(self) -> dict[str, list[Tensor]]:
        """Sets of weights that a snapshot holds beside the raw ones, by label: a tensor for each
        of ``net.params``. They are written as ``<prefix>_<label>_iter_<iteration>``."""
        return {}

    def load_further_weights(self, weights: dict[str, list[Tensor]]) -> None:
        """Take back what :meth:`further_weights` gave; labels a snapshot has not are missing."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know: numbers, strings, lists and dicts of them."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state_dict` gave."""
