"""Encoding behind the work: each file is encoded in a thread, from the samples that are finished.

An encoder cannot go on after a crash as the samples can; it begins anew with them, which costs
seconds, and gives the same file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from stemserve.audio.encode import Encoder
from stemserve.audio.stemfile import StemFile
from stemserve.audio.tags import Tags
from stemserve.audio.wav import WavFile
from stemserve.schema import STEM_FILE_STEMS, StemFormat
from stemserve.separation.outputs import Output
from stemserve.separation.segments import Segments, StoppedError

_BREATH_SECONDS = 0.25


class Encodings:
    """The encoding of some files, begun at once.

    Leaving the ``with`` block ends it, in mid-way unless `finish` has returned.

    Args:
        outputs: what is encoded.
        segments: from which samples.
        folder: where the files are written.
        rate: samples a second.
        channels: of the sound, 1 or 2.
        tags: what the files say about themselves.
    """

    def __init__(
        self,
        outputs: Sequence[Output],
        segments: Segments,
        folder: Path,
        rate: int,
        channels: int,
        tags: Tags,
    ) -> None:
        self._segments = segments
        self._folder = folder
        self._rate = rate
        self._channels = channels
        self._tags = tags
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1, "encoding")
        self._running: dict[str, Future[int]] = {
            output.name: self._pool.submit(self._encode, output) for output in outputs
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._segments.stop()
        self._pool.shutdown(cancel_futures=True)

    def check(self) -> None:
        """Raise what an encoder has failed of: `OSError`, when the disk is full."""
        for future in self._running.values():
            if future.done():
                future.result()

    def finish(self, breathe: Callable[[], None]) -> dict[str, int]:
        """Wait for all files, once the samples are; how many were held at full scale in each.

        ``breathe`` is called now and then, and may raise to give up.
        """
        while wait(self._running.values(), _BREATH_SECONDS).not_done:
            breathe()
        return {name: future.result() for name, future in self._running.items()}

    def _encode(self, output: Output) -> int:
        path = self._folder / output.name
        with suppress(StoppedError):
            match output.encoding.format:
                case StemFormat.WAV:
                    return self._wav(output, path)
                case StemFormat.STEM_MP4:
                    return self._stem_file(output, path)
                case _:
                    return self._file(output, path)
        return 0

    def _file(self, output: Output, path: Path) -> int:
        (stem,) = output.stems
        with Encoder(
            path, output.encoding, self._rate, self._channels, self._tags, voice=stem
        ) as encoder:
            for block in self._segments.follow(stem):
                encoder.write(block)
        return encoder.clipped

    def _stem_file(self, output: Output, path: Path) -> int:
        with StemFile(path, self._rate, STEM_FILE_STEMS, self._tags) as file:
            for blocks in zip(*map(self._segments.follow, output.stems), strict=True):
                file.write(blocks)
        return file.clipped

    def _wav(self, output: Output, path: Path) -> int:
        (stem,) = output.stems
        depth = output.encoding.depth
        assert depth is not None  # noqa: S101 (of wav there is one)
        width = 1 if output.encoding.mono else self._channels
        file = WavFile(path, depth, self._rate, width, voice=stem)
        try:
            beyond = sum(file.append(block) for block in self._segments.follow(stem))
            file.complete()
        finally:
            file.close()
        return beyond
