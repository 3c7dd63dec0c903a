"""One writer at a time: a lock on a file that ends with its process, however that ends."""

import os
import socket
import sys
from pathlib import Path
from typing import IO
from weakref import WeakSet

_LOCKS: "WeakSet[WriterLock]" = WeakSet()


class WriterLock:
    """A lock of the operating system on a file. A killed process leaves nothing to clean up.

    Two locks on one file exclude each other within a process as well. A child made by fork does
    not have the lock, and does not keep it alive when its parent is killed.
    """

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            ValueError: another live process has it, or the folder cannot be written to.
        """
        self._path = path
        self._file: IO[str] | None = None
        try:
            file = path.open("a+", encoding="utf-8")
        except OSError as error:
            raise ValueError(
                f"{path.parent} cannot be written to ({error}); choose another directory."
            ) from error
        try:
            _lock(file)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            raise ValueError(
                f"{path.parent} is being written to by {owner}; wait until it ends or stop it, or "
                "choose another directory (reading is possible meanwhile)."
            ) from error
        self._file = file
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        _LOCKS.add(self)

    def held(self) -> bool:
        """Whether this process has it, and the file of that name is still the locked one."""
        if self._file is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except OSError:
            return False

    def release(self) -> None:
        """Give the lock up; doing so twice is harmless."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        """As :meth:`release`."""
        self.release()


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        file.seek(2**20)  # beyond the text, which stays readable for others
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _forget() -> None:
        # Closing the child's handles leaves the parent's lock as it is; left open, they would
        # hold the lock after the parent is gone.
        for lock in list(_LOCKS):
            lock.release()

    os.register_at_fork(after_in_child=_forget)
