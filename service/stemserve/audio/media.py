"""Opening what somebody has sent, with FFmpeg by way of PyAV, and telling what cannot be opened.

A file is opened as a Python file with no protocol allowed to FFmpeg, so that a playlist or a
reference inside it cannot make the worker open anything else.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import av
from av.audio.stream import AudioStream
from av.container import InputContainer

from stemserve.errors import NotAudioError

_PROTECTED = {"drms", "enca", "aavd"}
"""Codec tags of encrypted sound: FairPlay, Common Encryption, Audible."""


@contextmanager
def opened(path: Path) -> Generator[tuple[InputContainer, AudioStream], None, None]:
    """A file and its first audio stream, for as long as the block lasts.

    Raises:
        NotAudioError: it is no audio that could be decoded.
    """
    with path.open("rb") as file:
        try:
            container = av.open(
                file, "r", options={"protocol_whitelist": "none"}, metadata_errors="replace"
            )
        except (av.FFmpegError, ValueError, EOFError) as error:
            raise NotAudioError(
                "The file is no audio or video that FFmpeg knows, or it was cut short. "
                "Play it locally, or export it again as WAV, FLAC or MP3."
            ) from error
        with container:
            if not container.streams.audio:
                raise NotAudioError("The file holds no audio stream.")
            stream = container.streams.audio[0]
            # PyAV gives no context where FFmpeg has no decoder, whatever its annotations say.
            if getattr(stream, "codec_context", None) is None:
                raise NotAudioError(
                    "The audio has a codec that FFmpeg cannot decode, or is protected (DRM)."
                )
            if stream.codec_context.codec_tag in _PROTECTED:
                raise NotAudioError(
                    "The audio is protected (DRM) and cannot be decoded. Use a copy without it."
                )
            yield container, stream
