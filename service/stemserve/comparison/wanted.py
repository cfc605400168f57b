"""From what is wanted to the page: reads the excerpt, runs the presets, writes the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stemserve.commands.shown import shown
from stemserve.comparison.compare import Comparison, compare
from stemserve.comparison.excerpt import parse_span, read_excerpt
from stemserve.comparison.page import render
from stemserve.direct import open_separation, run_until_signal
from stemserve.errors import NotAudioError, SettingsError
from stemserve.files import write_whole
from stemserve.settings import Settings


def compare_file(file: Path, presets: Sequence[str], at: str | None, out: Path) -> Comparison:
    """Compare presets on a part of a file, and write the page to ``out``.

    Args:
        file: A song.
        presets: Which; none: all that this machine can serve.
        at: The part, as `parse_span` reads it; None: from the middle.
        out: Where the page goes; what is there is replaced.

    Raises:
        StemserveError: there is nothing to compare, or no place for the page.
    """
    span = None if at is None else parse_span(at)
    if not file.is_file():
        raise NotAudioError(f"There is no file {file}.")
    if not out.absolute().parent.is_dir():
        raise SettingsError(f"--out {out}: there is no folder {out.absolute().parent}.")
    excerpt = read_excerpt(file, span)
    settings = Settings.load()

    async def work() -> Comparison:
        with shown(len(presets) or 1) as watcher:
            async with open_separation(settings, watcher.says) as separation:
                able = [p.name for p in await separation.presets() if p.available]
                return await compare(excerpt, presets or able, settings, separation, watcher)

    comparison = run_until_signal(work)
    try:
        write_whole(out.absolute(), render(comparison).encode())
        out.chmod(0o644)
    except OSError as error:
        raise SettingsError(f"--out {out} cannot be written: {error}.") from error
    return comparison
