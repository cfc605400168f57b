"""One task from its input to its results: decode, separate, store and encode in one stream.

Memory does not grow with the track: a part of a few seconds is decoded, separated, written, and
forgotten; encoders follow what is written. Results grow in a directory beside their place and are
moved in when all are whole. Where the process ends in mid-task, that directory stays, and the same
task goes on there behind the last finished segment; where the task fails, it goes.

What that directory holds is the size of the results for wav. For flac it is the samples as wav
holds them, about twice the results; for the lossy formats, and where a common gain is still to be
found (``rescale``), float32 samples: 21 MB a minute for each stem in stereo at 44.1 kHz.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from stemserve.audio.decode import AudioFacts, probe
from stemserve.audio.encode import Encoding
from stemserve.audio.tags import read_tags
from stemserve.errors import (
    NoSuchInputError,
    NotAudioError,
    TooManyChannelsError,
    TrackTooLongError,
)
from stemserve.files import sync_folder
from stemserve.schema import MIX, SIDECAR, ResultFile, derived_stems
from stemserve.separation import sidecar
from stemserve.separation.encoding import Encodings
from stemserve.separation.filling import Filling, beyond_the_end
from stemserve.separation.outputs import Output, in_place, kept, outputs
from stemserve.separation.partial import digest_of, partial_directory, put, sealed
from stemserve.separation.parts import opened
from stemserve.separation.presets import check_stems, find_preset
from stemserve.separation.progress import Emit, Progress
from stemserve.separation.recipes import Recipe
from stemserve.separation.segments import Segments
from stemserve.separation.separators import how_it_runs, open_separator
from stemserve.separation.span import Span
from stemserve.task import RESULTS, Finished, Logged, SeparationTask

SEGMENT_SECONDS = 300


def perform(task: SeparationTask, emit: Emit) -> Finished:
    """Do a task; the results are in place when this returns.

    Raises:
        StemserveError: the preset or a stem is not there, the input is no audio, the range is
            empty, the disk is full.
    """
    progress = Progress(emit)
    recipe = find_preset(task.preset)
    derived = derived_stems(recipe.stems)
    check_stems(recipe, [derived.get(stem, stem) for stem in task.stems if stem != MIX])
    made = outputs(task)
    progress.begin("models")
    separator = open_separator(recipe)
    progress.begin("cutting")
    facts = _probed(task)
    span = _span(task, facts)
    width = "mono" if facts.channels == 1 else "stereo"
    emit(Logged(line=f"{facts.seconds:.1f} s in {width} at {facts.rate} Hz, by {recipe.name}"))
    if how := how_it_runs(recipe):
        emit(Logged(line=f"networks run {how}"))
    remarks = [*facts.remarks, *facts.damage]
    for remark in remarks:
        emit(Logged(line=remark))
    ends = tuple(end - span.start for end in _ends(task, facts, span))
    parts = opened(task, facts, span)
    filling = Filling(task, recipe, separator, facts, span, ends, parts, remarks)
    work = _Work(task, recipe, facts, span, made, filling)
    progress.cut(facts.rate, filling.expected, ends)
    progress.begin("inference")
    with partial_directory(task.output_dir, kept=task.keep_partial) as partial:
        results, frames = work.do(partial, progress)
        for result in results:
            put(partial / RESULTS / result.name, task.output_dir / result.name)
        sync_folder(task.output_dir)
    progress.end()
    return Finished(results=results, duration_seconds=frames / facts.rate)


@dataclass
class _Work:
    """A task whose input is known."""

    task: SeparationTask
    recipe: Recipe
    facts: AudioFacts
    span: Span
    outputs: tuple[Output, ...]
    filling: Filling

    def do(self, partial: Path, progress: Progress) -> tuple[list[ResultFile], int]:
        """Make every file in a directory in ``partial``; also how many frames each holds."""
        task, facts = self.task, self.facts
        digest = task.input_sha256 or digest_of(task.input_path)
        segments = Segments(
            partial,
            self._key(digest),
            kept(task),
            facts.rate,
            facts.channels,
            task.clip,
            self.span.start,
        )
        results = partial / RESULTS
        shutil.rmtree(results, ignore_errors=True)  # encoders begin anew
        results.mkdir()
        encoded = [output for output in self.outputs if not in_place(output, task)]
        tags = read_tags(task.input_path)
        try:
            with Encodings(
                encoded, segments, results, facts.rate, facts.channels, tags
            ) as encodings:

                def check() -> None:
                    encodings.check()
                    _check_length(task, (self.span.start + segments.frames) / facts.rate)

                self.filling.fill(segments, progress, check)
                progress.begin("conversion")
                held = encodings.finish(progress.breathe)
            for output in self.outputs:
                # Samples may be held when they are kept, or else when they are encoded.
                before = sum(segments.journal.beyond.get(stem, 0) for stem in output.stems)
                held[output.name] = max(held.get(output.name, 0), before)
                if in_place(output, task):
                    put(segments.complete(output.stems[0]), results / output.name)
        finally:
            segments.close()
        told = self._told(segments, digest, held)
        self._log(told, progress)
        (results / SIDECAR).write_text(told.model_dump_json(indent=2) + "\n")
        return self._described(results, progress), segments.frames

    def _key(self, digest: str) -> str:
        """A digest of all that the samples depend on."""
        task, maker = self.task, sidecar.maker(self.recipe)
        found = [path for file in self.recipe.weights if (path := file.find())]
        on = {
            "input": digest,
            "maker": maker.model_dump(mode="json", exclude={"weights"}),
            # What a file holds is known only once a network was read from it.
            "weights": [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in found],
            "span": [self.span.start, self.span.end],
            "kept": {stem: [how.depth, how.mono] for stem, how in kept(task).items()},
            "clip": task.clip,
            "strict": task.strict,
            "how": how_it_runs(self.recipe),
        }
        return hashlib.sha256(json.dumps(on, sort_keys=True).encode()).hexdigest()

    def _told(self, segments: Segments, digest: str, held: dict[str, int]) -> sidecar.Sidecar:
        task, facts, seconds = self.task, self.facts, segments.journal.seconds
        frames = segments.frames / facts.rate
        return sidecar.Sidecar(
            input=sidecar.Input(
                name=task.input_name or task.input_path.name,
                sha256=digest,
                seconds=facts.seconds,
                rate=facts.rate,
                channels=facts.channels,
            ),
            parameters=sidecar.Parameters(
                stems=task.stems,
                format=task.format,
                bit_depth=Encoding(task.format, task.bit_depth).depth,
                mono=task.mono,
                clip=task.clip,
                range=task.range,
                strict=task.strict,
            ),
            maker=sidecar.maker(self.recipe),
            created=sidecar.now(),
            seconds=round(seconds, 3),
            realtime=round(frames / max(seconds, 1e-3), 2),
            result_seconds=frames,
            gain=segments.gain,
            taken=tuple((part.start, part.end) for part in self.filling.parts),
            held_at_full_scale={name: count for name, count in held.items() if count},
            peaks=segments.journal.peaks,
            remarks=tuple(self.filling.remarks),
        )

    def _log(self, told: sidecar.Sidecar, progress: Progress) -> None:
        if told.gain < 1:
            line = f"all files are turned down by {told.gain:.4f}, so that nothing clips"
            progress.emit(Logged(line=line))
        for name, count in told.held_at_full_scale.items():
            line = f"{name}: {count} samples held at full scale; rescale, or wav in 32f, keeps them"
            progress.emit(Logged(line=line))

    def _described(self, results: Path, progress: Progress) -> list[ResultFile]:
        stems = {output.name: output.stem for output in self.outputs}
        paths = sorted(results.iterdir())
        described = []
        with ThreadPoolExecutor() as pool:
            for path, digest in zip(paths, pool.map(sealed, paths), strict=True):
                described.append(
                    ResultFile(
                        name=path.name,
                        stem=stems.get(path.name),
                        size=path.stat().st_size,
                        sha256=digest,
                    )
                )
                progress.report()
        return described


def _probed(task: SeparationTask) -> AudioFacts:
    try:
        facts = probe(task.input_path)
    except FileNotFoundError as error:
        raise NoSuchInputError("The input is no longer there. Send it again.") from error
    if task.strict and facts.damage:
        raise NotAudioError(f"{facts.damage[0]} Use a sound copy, or leave out strict.")
    if task.most_channels is not None and facts.source_channels > task.most_channels:
        raise TooManyChannelsError(
            f"The track has {facts.source_channels} channels; this worker takes"
            f" {task.most_channels}. Mix it down first."
        )
    _check_length(task, facts.seconds)
    return facts


def _span(task: SeparationTask, facts: AudioFacts) -> Span:
    """The frames of the track that are wanted."""
    if task.range is None:
        return Span()
    end = task.range.end_seconds
    span = Span(
        _nearest(task.range.start_seconds, facts.rate),
        None if end is None else min(_nearest(end, facts.rate), max(facts.frames, 1)),
    )
    if span.start >= (facts.frames if span.end is None else span.end):
        raise beyond_the_end(facts)
    return span


def _nearest(seconds: float, rate: int) -> int:
    return int(seconds * rate + 0.5)


def _ends(task: SeparationTask, facts: AudioFacts, span: Span) -> tuple[int, ...]:
    """Frames of the track at which segments within the span end, the last left out."""
    points = task.cut_points or range(SEGMENT_SECONDS, int(facts.seconds) + 1, SEGMENT_SECONDS)
    last = facts.frames if span.end is None else span.end
    return tuple(end for p in points if span.start < (end := _nearest(p, facts.rate)) < last)


def _check_length(task: SeparationTask, seconds: float) -> None:
    if task.longest_seconds is not None and seconds > task.longest_seconds:
        raise TrackTooLongError(
            f"The track is longer than {task.longest_seconds:g} s, which is what this worker takes."
        )
