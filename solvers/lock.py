"""One run per snapshot prefix: a lock that the operating system drops when its owner dies."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path

from ..proto.errors import ResourceError


class PrefixLock:
    """Holds ``<prefix>.lock``; a second run on the prefix is refused and told who has it.

    The lock belongs to the open file, so that of a process that died is free at once and is simply
    taken over. ResourceError if another process holds it, or if the folder cannot be written to.
    """

    def __init__(self, prefix: str) -> None:
        self.path = Path(f"{prefix}.lock")
        self._descriptor: int | None = None

    def acquire(self) -> None:
        while self._descriptor is None:
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                owner = os.read(descriptor, 200).decode(errors="replace").strip()
                os.close(descriptor)
                raise ResourceError(
                    f"{self.path}: another run is writing snapshots with this snapshot_prefix: "
                    f"{owner or 'an unknown process'}; wait for it, or choose another prefix"
                ) from None
            if self._is_current(descriptor):
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                self._descriptor = descriptor
            else:
                os.close(descriptor)  # its owner has just removed it

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            reason = (error.strerror or "cannot be written").lower()
            raise ResourceError(
                f"snapshot_prefix {str(self.path.with_suffix(''))!r}: {self.path.parent} is no "
                f"folder this run can write to ({reason})"
            ) from None

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.stat(self.path).st_ino == os.fstat(descriptor).st_ino
        except FileNotFoundError:
            return False

    def release(self) -> None:
        if self._descriptor is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None
