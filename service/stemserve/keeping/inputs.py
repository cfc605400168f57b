"""Inputs under the name of their content: sending one twice stores it once."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path

import anyio
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

    async def _within_limit(self, chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
        size = 0
        async for chunk in chunks:
            size += len(chunk)
            if size > self._limit:
                self.check_room(size)
            yield chunk

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
        with new_file(self._folder) as (file, temporary):

            def take(piece: list[bytes]) -> None:
                self.check_room(sum(map(len, piece)))
                for chunk in piece:
                    digest.update(chunk)
                    file.write(chunk)

            size = await _taken(take, _gathered(self._within_limit(chunks)))
            await to_thread.run_sync(synced, file)
            found = digest.hexdigest()
            if sha256 not in (None, found):
                raise DigestMismatchError(
                    f"The {size} bytes sent have the SHA-256 {found}; send the file again."
                )
            await to_thread.run_sync(moved_in, temporary, self._folder / found)
        return Input(sha256=found, size=size)


async def _taken(take: Callable[[list[bytes]], None], pieces: AsyncIterable[list[bytes]]) -> int:
    """Give all pieces to ``take``, in a thread, while the next one comes; how many bytes it was."""
    size = 0
    failures: list[Exception] = []  # the group would wrap them
    send, receive = anyio.create_memory_object_stream[list[bytes]](1)

    async def take_all() -> None:
        try:
            async for piece in receive:
                await to_thread.run_sync(take, piece)
        except Exception as error:  # noqa: BLE001 - raised below
            failures.append(error)
            group.cancel_scope.cancel()

    with send, receive:
        async with anyio.create_task_group() as group:
            group.start_soon(take_all)
            try:
                async for piece in pieces:
                    size += sum(map(len, piece))
                    await send.send(piece)
            except Exception as error:  # noqa: BLE001 - raised below
                failures.append(error)
                group.cancel_scope.cancel()
            send.close()
    if failures:
        raise failures[0]
    return size


async def _gathered(chunks: AsyncIterable[bytes]) -> AsyncIterator[list[bytes]]:
    piece: list[bytes] = []
    size = 0
    async for chunk in chunks:
        piece.append(chunk)
        size += len(chunk)
        if size >= _PIECE:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece
