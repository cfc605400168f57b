"""Which files a task makes, and how the samples for them are kept until they are made."""

from __future__ import annotations

from dataclasses import dataclass

from stemserve.audio.encode import Encoding
from stemserve.errors import UnknownNameError
from stemserve.schema import (
    MIX,
    STEM_FILE_STEMS,
    BitDepth,
    Clip,
    StemFormat,
    file_names,
)
from stemserve.task import SeparationTask, kept_in_results

TEMPLATE_FILE = "instrumental.mp3"
_TEMPLATE_STEM = "instrumental"
_TEMPLATE_ENCODING = Encoding(StemFormat.MP3, mono=True, mp3_quality=2)


@dataclass(frozen=True)
class Output:
    """One result file. ``stems``: what is in it, one, or the mix and the stems of a stem file."""

    name: str
    stems: tuple[str, ...]
    encoding: Encoding

    @property
    def stem(self) -> str | None:
        """The stem that it holds; None: several."""
        return self.stems[0] if len(self.stems) == 1 else None


@dataclass(frozen=True)
class Kept:
    """How a stem's samples are kept: as a file is made of them, so that it can be made anew."""

    depth: BitDepth
    mono: bool


def outputs(task: SeparationTask) -> tuple[Output, ...]:
    """The result files of a task.

    Raises:
        UnknownNameError: a stem file of other stems than it can hold.
    """
    encoding = Encoding(task.format, task.bit_depth, task.mono)
    names = file_names(task.stems, task.format)
    if task.format is StemFormat.STEM_MP4:
        if set(task.stems) != set(STEM_FILE_STEMS):
            raise UnknownNameError(
                f"A {task.format} holds {', '.join(STEM_FILE_STEMS)}, all of them and no others.",
                list(STEM_FILE_STEMS),
            )
        return (Output(names[0], (MIX, *STEM_FILE_STEMS), encoding),)
    made = [Output(name, (stem,), encoding) for name, stem in zip(names, task.stems, strict=True)]
    if task.template_mp3 and TEMPLATE_FILE not in names:
        made.append(Output(TEMPLATE_FILE, (_TEMPLATE_STEM,), _TEMPLATE_ENCODING))
    return tuple(made)


def kept(task: SeparationTask) -> dict[str, Kept]:
    """How the samples of each stem are kept.

    wav and flac take them as the file will hold them, unless a gain is still to come; a lossy
    encoder takes them as they were computed.
    """
    encoding = Encoding(task.format, task.bit_depth, task.mono)
    depth = None if task.clip is Clip.RESCALE else encoding.depth
    stems = dict.fromkeys(stem for output in outputs(task) for stem in output.stems)
    return dict.fromkeys(stems, Kept(depth or BitDepth.F32, task.mono))


def in_place(output: Output, task: SeparationTask) -> bool:
    """Whether the samples are kept in what will be the result: nothing is left to encode."""
    return kept_in_results(output.encoding.format, task.clip)
