"""What happens beside the loop: testing, display, signals, snapshots, watching for trouble."""

from .base import Hook

__all__ = ["Hook"]
