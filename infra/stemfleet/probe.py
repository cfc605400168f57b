"""One worker over HTTP: is it up, and does it separate? Asked with a short generated song.

A machine that is "running" on its cloud is not yet serving, and one that answers /health may still
separate wrongly, or not on the GPU that is paid for. So each is given a real job.
"""

from __future__ import annotations

import array
import functools
import hashlib
import io
import math
import secrets
import ssl
import time
import wave
from contextlib import suppress
from typing import Any

import httpx

from stemfleet.clouds.base import Certificate
from stemfleet.clouds.trust import trust_only

RATE = 44_100
SECONDS = 3
FRAMES = RATE * SECONDS
JOB_SECONDS = 300.0
"""What a worker may take for the job; a network loads its weights in that time."""

POLL_SECONDS = 0.05
"""Between two looks at the job."""


class NotYetError(Exception):
    """The worker may become ready by itself; the message says what it does now."""


class DudError(Exception):
    """The worker will not become what was asked for; another in its place may."""


class UnfitError(Exception):
    """Any other worker would fail in the same way, until someone mends the cause."""


@functools.cache
def probe_song() -> bytes:
    """3 s of stereo as WAV, 44.1 kHz, 16 bits: a tone in the centre, another on the left."""
    beat = array.array("h")
    for n in range(RATE):
        centre = 9000 * math.sin(2 * math.pi * 440 * n / RATE)
        side = 9000 * math.sin(2 * math.pi * 110 * n / RATE)
        beat.extend((int(centre + side), int(centre)))
    if array.array("H", [1]).tobytes()[0] == 0:
        beat.byteswap()
    file = io.BytesIO()
    with wave.open(file, "wb") as song:
        song.setnchannels(2)
        song.setsampwidth(2)
        song.setframerate(RATE)
        song.writeframes(beat.tobytes() * SECONDS)
    return file.getvalue()


def open_client(url: str, certificate: Certificate | None = None) -> httpx.Client:
    """A client for one worker. Loopback is never asked through a proxy.

    A worker that was given a ``certificate`` must show that one; any other, one of the web's.

    Raises:
        NotYetError: it was given one, and is not reached over HTTPS: the token would be seen.
    """
    if certificate and not url.startswith("https:"):
        raise NotYetError(f"{url} is not HTTPS, though the worker there was given a certificate")
    # Loading the trusted certificates takes longer than the whole boot of a small worker.
    verify: ssl.SSLContext | bool = _trusted() if url.startswith("https:") else False
    return httpx.Client(
        verify=trust_only(certificate.ca) if certificate else verify,
        timeout=httpx.Timeout(30.0, connect=5.0),
        mounts={"all://127.0.0.1": None, "all://localhost": None},
    )


@functools.cache
def _trusted() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def check_ready(client: httpx.Client, url: str, token: str) -> None:
    """Return if the worker would start a job now.

    Raises:
        NotYetError: it does not answer, or says that it is not ready.
        DudError: it does not know the token.
    """
    try:
        answer = client.get(f"{url}/ready", headers=_bearer(token), timeout=5.0)
    except httpx.TransportError as error:
        raise NotYetError(f"no answer from {url} ({error})") from error
    if answer.status_code in (401, 403):
        raise DudError(f"{url} does not know the stack's token")
    if answer.status_code != httpx.codes.OK:
        reason = _json(answer).get("reason") or f"answers {answer.status_code}"
        raise NotYetError(f"{url} is not ready: {reason}")


def check_preset(client: httpx.Client, url: str, token: str, preset: str) -> None:
    """Return if the worker serves the preset, or cannot tell yet what it serves.

    Raises:
        UnfitError: it says that it cannot, so waiting is of no use.
    """
    try:
        status = _get(client, f"{url}/status", token)
    except (httpx.TransportError, DudError):
        return
    presets = {str(row["name"]): row for row in status.get("presets", ())}
    if presets and preset not in presets:
        raise UnfitError(f"there is no preset {preset!r}; there are: {', '.join(presets)}")
    if presets and not presets[preset]["available"]:
        lacks = presets[preset].get("lacks") or "it does not say what it lacks"
        raise UnfitError(f"the preset {preset!r} cannot be served: {lacks}")


def prove(client: httpx.Client, url: str, token: str, preset: str, deadline: float) -> float:
    """Give a worker that is ready the song, check what comes back, and remove the job.

    ``deadline`` is of `time.monotonic`. Returns seconds of music per second of work.

    Raises:
        DudError: it failed, took too long, or answered wrongly.
        UnfitError: it cannot serve the preset, though it serves others.
    """
    job = f"probe-{secrets.token_hex(8)}"
    try:
        check_preset(client, url, token, preset)
        song = probe_song()
        digest = hashlib.sha256(song).hexdigest()
        _send(client, "PUT", f"{url}/inputs/{digest}", token, content=song)
        body = {
            "job_id": job,
            "input_sha256": digest,
            "input_name": "probe.wav",
            "preset": preset,
            "format": "wav",
            "bit_depth": "16",
        }
        _send(client, "POST", f"{url}/job", token, json=body)
        done = _await_job(client, f"{url}/job/{job}", token, deadline)
        names = [str(result["name"]) for result in done.get("results") or ()]
        stems = [name for name in names if name.endswith(".wav")]
        if not stems:
            raise DudError("it completed a job without a stem")
        for name in stems:
            answer = _send(client, "GET", f"{url}/result/{job}", token, params={"file": name})
            _check_length(name, answer.content)
        _send(client, "DELETE", f"{url}/job/{job}", token)
        realtime = round(SECONDS / max(float(done["elapsed_seconds"]), 1e-3), 2)
    except httpx.TransportError as error:
        raise DudError(f"it broke off in the middle of a separation ({error})") from error
    except (KeyError, TypeError, ValueError) as error:
        raise DudError(f"it does not speak the worker's language ({error!r})") from error
    return realtime


def keep_on(client: httpx.Client, url: str, token: str) -> None:
    """Tell a worker that it will be given work, so that it does not end itself before.

    One that does not hear it is none the worse: what matters is seen when it is given work.
    """
    with suppress(httpx.HTTPError):
        wants = {"expect_work": "true"}
        client.post(f"{url}/lease", params=wants, headers=_bearer(token), timeout=5.0)


def _await_job(client: httpx.Client, url: str, token: str, deadline: float) -> dict[str, Any]:
    deadline = min(deadline, time.monotonic() + JOB_SECONDS)
    while time.monotonic() < deadline:
        job = _get(client, url, token)
        if job["status"] == "completed":
            return job
        if job["status"] == "failed":
            raise DudError(f"a separation failed: {job.get('error')}")
        time.sleep(POLL_SECONDS)
    raise DudError(f"a separation of {SECONDS} s of music did not end in time")


def _check_length(name: str, content: bytes) -> None:
    try:
        with wave.open(io.BytesIO(content)) as stem:
            length, rate = stem.getnframes(), stem.getframerate()
    except (wave.Error, EOFError) as error:
        raise DudError(f"{name} is no WAV file ({error})") from error
    if (length, rate) != (FRAMES, RATE):
        raise DudError(f"{name} has {length} frames at {rate} Hz, not {FRAMES} at {RATE} Hz")


def _get(client: httpx.Client, url: str, token: str) -> dict[str, Any]:
    return _json(_send(client, "GET", url, token))


def _send(client: httpx.Client, method: str, url: str, token: str, **kwargs: Any) -> httpx.Response:  # noqa: ANN401
    answer = client.request(method, url, headers=_bearer(token), **kwargs)
    if answer.is_error:
        detail = _json(answer).get("detail") or answer.reason_phrase
        raise DudError(f"{method} {answer.url.path}: {answer.status_code}, {detail}")
    return answer


def _json(answer: httpx.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
