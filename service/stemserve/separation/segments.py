"""What of a task is finished, on the disk: after a crash the work goes on behind it.

Each stem's samples lie in a WAV file that grows (`stemserve.audio.wav`); a journal beside them says
how far they are known to be on the disk, and under which key. The key is a digest of all that the
samples depend on: work under another key is never taken up. The journal moves on to the end of each
segment as soon as the disk has it, while the next is separated; what a crash leaves behind its mark
is overwritten.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Condition

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from stemserve.audio import Block
from stemserve.audio.wav import WavFile, WavSamples
from stemserve.schema import Clip
from stemserve.separation.outputs import Kept

JOURNAL = "finished.json"
FULL_SCALE = 1 - 2.0**-13
"""To where stems are turned down: dither and rounding to 16 bits then stay within full scale."""

BLOCK_FRAMES = 65536


class Journal(BaseModel):
    """What is known to be on the disk."""

    model_config = ConfigDict(frozen=True)

    key: str
    frames: int = 0
    ended: bool = False
    """Whether that is all there is."""
    peaks: dict[str, float] = {}
    """Of each stem, the largest absolute sample."""
    beyond: dict[str, int] = {}
    """Of each stem, how many samples had to be held at full scale."""
    seconds: float = 0.0
    """What it took."""


class StoppedError(Exception):
    """Nothing more will come: whoever reads behind the work gives up."""


class Segments:
    """The samples of a task's stems.

    One thread appends, any may `follow`.

    Args:
        folder: where they lie; it exists. What else lies there is removed unless it is the same
            work, half done.
        key: what the samples depend on.
        stems: which, and how they are kept.
        rate: samples a second.
        channels: of the sound, 1 or 2.
        clip: what becomes of samples beyond full scale.
        first: which frame of the track their first is.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        stems: Mapping[str, Kept],
        rate: int,
        channels: int,
        clip: Clip,
        first: int = 0,
    ) -> None:
        self._folder = folder
        self._stems = stems
        self._clip = clip
        self._grown = Condition()
        self._stopped = False
        widths = {stem: 1 if kept.mono else channels for stem, kept in stems.items()}
        journal = _read(folder / JOURNAL)
        if journal is None or journal.key != key or not self._all_there(journal.frames, widths):
            _empty(folder)
            journal = None
        self.journal = journal or Journal(key=key)
        """What is finished; `commit` moves it on."""
        self._told = self.journal
        self._now = self.journal
        self._disk = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None
        mark = None if journal is None else journal.frames
        self._files = {
            stem: WavFile(
                self.path(stem),
                kept.depth,
                rate,
                widths[stem],
                voice=stem,
                frames=mark,
                first=first,
            )
            for stem, kept in stems.items()
        }

    @property
    def frames(self) -> int:
        """How many frames of each stem have been written."""
        return self._now.frames

    @property
    def gain(self) -> float:
        """The gain that all files get; known at the end."""
        peak = max(self._now.peaks.values(), default=0.0)
        return FULL_SCALE / peak if self._clip is Clip.RESCALE and peak > FULL_SCALE else 1.0

    def path(self, stem: str) -> Path:
        """Where a stem's samples are."""
        return self._folder / f"{stem}.samples"

    def append(self, part: Mapping[str, Block]) -> None:
        """Write the next part of every stem, all of one length."""
        peaks, beyond, frames = dict(self._now.peaks), dict(self._now.beyond), 0
        for stem, file in self._files.items():
            block = part[stem]
            frames = len(block)
            if self._stems[stem].mono and block.shape[1] > 1:
                block = block.mean(axis=1, keepdims=True)
            held = 0
            if frames:
                peaks[stem] = max(peaks.get(stem, 0.0), float(np.abs(block).max()))
            if self._clip is Clip.CLAMP:
                held = int(np.count_nonzero(np.abs(block) > 1))
                block = np.clip(block, -1, 1)
            at_full = file.append(block)
            beyond[stem] = beyond.get(stem, 0) + max(held, at_full)
        self._grow(frames, peaks, beyond)

    def take(self, sources: Mapping[str, WavSamples], start: int, frames: int) -> None:
        """Write what was finished elsewhere: ``frames`` of every stem, from ``start`` in its file.

        They are kept there as they are here. What was held at full scale there is not known.
        """
        peaks = dict(self._now.peaks)
        for at in range(start, start + frames, BLOCK_FRAMES):
            count = min(BLOCK_FRAMES, start + frames - at)
            for stem, file in self._files.items():
                file.append_kept(sources[stem].read(at, count))
                block = file.read(file.frames - count, count)
                peaks[stem] = max(peaks.get(stem, 0.0), float(np.abs(block).max()))
            self._grow(count, peaks, self._now.beyond)

    def _grow(self, frames: int, peaks: dict[str, float], beyond: dict[str, int]) -> None:
        update = {"frames": self._now.frames + frames, "peaks": dict(peaks), "beyond": beyond}
        with self._grown:
            self._now = self._now.model_copy(update=update)
            self._grown.notify_all()

    def commit(self, seconds: float) -> None:
        """Move the journal to all that was written, once that would survive a loss of power.

        That happens beside the work; only the one before is waited for. ``seconds``: what it took
        altogether.

        Raises:
            OSError: the disk failed, now or at an earlier `commit`.
        """
        self._settle()
        journal = self._now.model_copy(update={"seconds": seconds})
        self._pending = self._disk.submit(self._store, journal)

    def end(self, seconds: float) -> None:
        """Nothing more will come. Returns once all would survive a loss of power.

        Raises:
            OSError: the disk failed, now or at an earlier `commit`.
        """
        self._settle()
        journal = self._now.model_copy(update={"seconds": seconds, "ended": True})
        self._store(journal)
        with self._grown:
            self._now = journal
            self._grown.notify_all()

    def moved(self) -> bool:
        """Whether the journal has moved on since this was asked last.

        Raises:
            OSError: the disk failed at a `commit`.
        """
        if self._pending is not None and self._pending.done():
            self._settle()
        before, self._told = self._told, self.journal
        return before is not self._told

    def _store(self, journal: Journal) -> None:
        for file in self._files.values():
            file.sync()
        _write(self._folder / JOURNAL, journal)
        self.journal = journal

    def _settle(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def follow(self, stem: str) -> Iterator[Block]:
        """All of a stem, with the gain, in blocks of `BLOCK_FRAMES`, as it comes.

        Raises:
            StoppedError: `stop` was called.
        """
        at = 0
        while True:
            wanted = at + BLOCK_FRAMES

            def there(wanted: int = wanted) -> bool:
                # The gain is known at the end only.
                grown = self._now.frames >= wanted and self._clip is not Clip.RESCALE
                return self._stopped or self._now.ended or grown

            with self._grown:
                self._grown.wait_for(there)
                if self._stopped:
                    raise StoppedError
            block = self._files[stem].read(at, BLOCK_FRAMES)
            if not len(block):
                return
            yield block if self.gain == 1 else block * np.float32(self.gain)
            at += len(block)

    def complete(self, stem: str) -> Path:
        """Make a stem's samples a whole WAV file; where it is."""
        self._files[stem].complete()
        return self.path(stem)

    def stop(self) -> None:
        """Let whoever follows give up."""
        with self._grown:
            self._stopped = True
            self._grown.notify_all()

    def close(self) -> None:
        """Close the files. Nobody may follow any more."""
        self._disk.shutdown()
        for file in self._files.values():
            file.close()

    def _all_there(self, frames: int, widths: Mapping[str, int]) -> bool:
        def size(stem: str) -> int:
            path = self.path(stem)
            return path.stat().st_size if path.is_file() else -1

        return all(
            size(stem) >= WavFile.size(kept.depth, widths[stem], frames)
            for stem, kept in self._stems.items()
        )


def in_segments(
    parts: Iterator[dict[str, Block]], start: int, ends: tuple[int, ...]
) -> Iterator[tuple[dict[str, Block], bool]]:
    """Parts from frame ``start`` on, cut where segments end; whether each ends one."""
    at = start
    for part in parts:
        rest, left = part, len(next(iter(part.values())))
        while left:
            end = next((end for end in ends if end > at), None)
            take = left if end is None else min(left, end - at)
            yield {stem: block[:take] for stem, block in rest.items()}, at + take == end
            rest = {stem: block[take:] for stem, block in rest.items()}
            at, left = at + take, left - take


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _read(path: Path) -> Journal | None:
    try:
        return Journal.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _write(path: Path, journal: Journal) -> None:
    new = path.with_suffix(".new")
    with new.open("wb") as file:
        file.write(journal.model_dump_json().encode())
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
