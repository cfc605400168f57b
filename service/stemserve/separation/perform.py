"""One task from its input to its results: decode, separate and encode in one stream.

Memory does not grow with the track: a part of a few seconds is decoded, separated, written, and
forgotten. Results grow in a directory beside their place and are moved in when all are whole.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from stemserve.audio.decode import AudioFacts, decode, probe
from stemserve.audio.encode import Encoder, Encoding
from stemserve.errors import DiskFullError, NotAudioError
from stemserve.schema import Details, ResultFile, StemFormat, Tasks, TaskState
from stemserve.separation.presets import check_stems, find_preset
from stemserve.separation.separators import Separator, open_separator
from stemserve.task import Advanced, Event, Finished, Logged, SeparationTask

SEGMENT_SECONDS = 300
TEMPLATE_FILE = "instrumental.mp3"
_TEMPLATE_ENCODING = Encoding(StemFormat.MP3, mono=True, mp3_quality=2)
_PARTIAL = ".partial"
_REPORT_SECONDS = 0.25
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Emit = Callable[[Event], None]


def perform(task: SeparationTask, emit: Emit) -> Finished:
    """Do a task; the results are in place when this returns.

    Raises:
        StemserveError: the preset or a stem is not there, the input is no audio, the disk is full.
    """
    progress = _Progress(emit)
    recipe = find_preset(task.preset)
    check_stems(recipe, task.stems)
    progress.begin("models")
    separator = open_separator(recipe)
    progress.begin("cutting")
    try:
        facts = probe(task.input_path)
    except FileNotFoundError as error:
        raise NotAudioError("The input is no longer there. Send it again.") from error
    width = "mono" if facts.channels == 1 else "stereo"
    emit(Logged(line=f"{facts.seconds:.1f} s in {width} at {facts.rate} Hz, by {recipe.name}"))
    for remark in facts.remarks:
        emit(Logged(line=remark))
    progress.cut(facts, task.cut_points)
    progress.begin("inference")
    with _partial_directory(task.output_dir) as partial:
        frames = _separate(task, separator, facts, partial, progress)
        progress.begin("conversion")
        results = []
        for path in sorted(partial.iterdir()):
            results.append(_result(path))
            progress.report()
        for result in results:
            (partial / result.name).replace(task.output_dir / result.name)
    progress.end()
    return Finished(results=results, duration_seconds=frames / facts.rate)


def _separate(
    task: SeparationTask,
    separator: Separator,
    facts: AudioFacts,
    directory: Path,
    progress: _Progress,
) -> int:
    """Write every file of the task to ``directory``; the number of frames that each holds."""
    files = _files(task)
    stems = tuple(dict.fromkeys(stem for stem, _ in files.values()))
    frames = 0
    with ExitStack() as stack:
        encoders = {
            name: stack.enter_context(
                Encoder(directory / name, encoding, facts.rate, facts.channels)
            )
            for name, (_, encoding) in files.items()
        }
        for part in separator(decode(task.input_path, facts), facts.rate, stems):
            for name, encoder in encoders.items():
                encoder.write(part[files[name][0]])
            frames += len(part[stems[0]])
            progress.reach(frames)
    for name, encoder in encoders.items():
        if encoder.clipped:
            progress.emit(
                Logged(line=f"{name}: {encoder.clipped} samples held at full scale; wav 32f is not")
            )
    return frames


def _files(task: SeparationTask) -> dict[str, tuple[str, Encoding]]:
    """Name, stem and encoding of each file that the task asks for."""
    encoding = Encoding(task.format, task.bit_depth, task.mono)
    files = {f"{stem}.{task.format}": (stem, encoding) for stem in task.stems}
    if task.template_mp3:
        files.setdefault(TEMPLATE_FILE, ("instrumental", _TEMPLATE_ENCODING))
    return files


@contextmanager
def _partial_directory(output: Path) -> Iterator[Path]:
    """A directory beside the results' place, gone afterwards whatever happens.

    What a killed predecessor left there goes first.
    """
    partial = output / _PARTIAL
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise DiskFullError(
                "The worker has no room left for the results. "
                "Delete finished jobs or give it a larger disk, and try again."
            ) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _result(path: Path) -> ResultFile:
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return ResultFile(name=path.name, stem=path.stem, size=path.stat().st_size, sha256=digest)


@dataclass
class _Progress:
    """Turns frames done into events: one at every segment, else a few a second."""

    emit: Emit
    rate: int = 1
    expected: int = 0
    ends: list[int] = field(default_factory=list)
    """Frames at which segments end, the last left out."""
    frames: int = 0
    states: dict[str, TaskState] = field(default_factory=dict)
    _reported: float = 0.0

    def begin(self, task: str) -> None:
        """One of the template's tasks begins, which ends the one before."""
        self.states = dict.fromkeys(self.states, TaskState.DONE) | {task: TaskState.RUNNING}
        self.report()

    def cut(self, facts: AudioFacts, cut_points: tuple[float, ...]) -> None:
        """The input is known: set up its segments."""
        self.rate, self.expected = facts.rate, facts.frames
        points = cut_points or tuple(
            range(SEGMENT_SECONDS, int(facts.seconds) + 1, SEGMENT_SECONDS)
        )
        self.ends = [end for p in points if 0 < (end := round(p * facts.rate)) < facts.frames]
        self.report()

    def reach(self, frames: int) -> None:
        """So many frames are separated and written."""
        segments = self._completed()
        self.frames = frames
        if self._completed() > segments or monotonic() - self._reported > _REPORT_SECONDS:
            self.report()

    def end(self) -> None:
        """All is done."""
        self.states = dict.fromkeys(self.states, TaskState.DONE)
        total = len(self.ends) + 1
        self._send(Details(completed_segments=total, total_segments=total, percent=100))

    def report(self) -> None:
        """Say how far it is."""
        total = len(self.ends) + 1 if self.expected else 0
        # The packets' count is not exact for every codec: 100 is said when all is in place.
        share = min(self.frames / self.expected, 0.99) if self.expected else 0
        self._send(
            Details(
                completed_segments=self._completed(),
                total_segments=total,
                percent=round(100 * share, 2),
            )
        )

    def _completed(self) -> int:
        return sum(end <= self.frames for end in self.ends)

    def _send(self, details: Details) -> None:
        self._reported = monotonic()
        seconds = self.expected / self.rate if self.expected else None
        self.emit(Advanced(tasks=Tasks(**self.states), details=details, duration_seconds=seconds))
