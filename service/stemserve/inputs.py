"""Inputs under the name of their content: sending one twice stores it once."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import AsyncIterable
from pathlib import Path

from anyio import to_thread

from stemserve.errors import (
    DigestMismatchError,
    DiskFullError,
    InputTooLargeError,
    NoSuchInputError,
)
from stemserve.files import DISK_FULL, moved_in, new_file, synced
from stemserve.schema import Input

_PIECE = 2**20
"""Bytes that are gathered before they go to the disk, off the event loop."""


class Inputs:
    """The inputs in ``folder``, each a file named by the SHA-256 of its bytes."""

    def __init__(self, folder: Path, limit: int, keep_free: int) -> None:
        self._folder = folder
        self._limit = limit
        self._keep_free = keep_free
        folder.mkdir(parents=True, exist_ok=True)
        for left_over in folder.glob(".new-*"):
            left_over.unlink()

    def path(self, sha256: str) -> Path:
        """Where the input is; raises `NoSuchInputError`."""
        path = self._folder / sha256
        if not path.is_file():
            raise NoSuchInputError(f"There is no such input here; send it: PUT /inputs/{sha256}.")
        return path

    def find(self, sha256: str) -> Input | None:
        """The input, if it is there."""
        try:
            return Input(sha256=sha256, size=self.path(sha256).stat().st_size)
        except (NoSuchInputError, FileNotFoundError):
            return None

    def all(self) -> list[Input]:
        """All inputs that are there."""
        names = (entry.name for entry in os.scandir(self._folder))
        found = (self.find(name) for name in names if not name.startswith("."))
        return [one for one in found if one is not None]

    def delete(self, sha256: str) -> None:
        """Remove the input, if it is there."""
        (self._folder / sha256).unlink(missing_ok=True)

    def check_room(self, size: int) -> None:
        """Raise `InputTooLargeError` or `DiskFullError` if ``size`` bytes more are too many."""
        if size > self._limit:
            raise InputTooLargeError(
                f"The input is larger than {self._limit} bytes, which is what this worker takes."
            )
        if shutil.disk_usage(self._folder).free - size < self._keep_free:
            raise DiskFullError(DISK_FULL)

    async def store(self, chunks: AsyncIterable[bytes], sha256: str | None = None) -> Input:
        """Write ``chunks`` to the disk and name them by their content.

        Args:
            chunks: The input's bytes. What this raises is passed on, and nothing is kept.
            sha256: What the content must be.

        Raises:
            DigestMismatchError: the content is not ``sha256``.
            InputTooLargeError: there are more bytes than the limit.
            DiskFullError: there is no room for them.
        """
        digest = hashlib.sha256()
        size = 0
        with new_file(self._folder) as (file, temporary):
            async for piece in _gathered(chunks):
                size += len(piece)
                if size > self._limit:
                    self.check_room(size)
                await to_thread.run_sync(self.check_room, len(piece))
                await to_thread.run_sync(digest.update, piece)
                await to_thread.run_sync(file.write, piece)
            await to_thread.run_sync(synced, file)
            found = digest.hexdigest()
            if sha256 not in (None, found):
                raise DigestMismatchError(
                    f"The {size} bytes sent have the SHA-256 {found}; send the file again."
                )
            await to_thread.run_sync(moved_in, temporary, self._folder / found)
        return Input(sha256=found, size=size)


async def _gathered(chunks: AsyncIterable[bytes]) -> AsyncIterable[bytes]:
    buffer = bytearray()
    async for chunk in chunks:
        buffer += chunk
        if len(buffer) >= _PIECE:
            yield bytes(buffer)
            buffer.clear()
    if buffer:
        yield bytes(buffer)
