"""Parts of long tracks in a bucket: put there by workers, fetched from there by the one that joins.

Nothing of them passes through here. In place of each file this machine keeps its `Deposit`. They
lie in a hidden folder of the bucket for as long as their track is not done.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread
from pydantic import BaseModel, ConfigDict, ValidationError
from stemserve.schema import BitDepth, Fetch, FetchStatus, Part, Segment, Segments

from stemctl.asked.track import Track
from stemctl.dispatch.crew import Trip
from stemctl.dispatch.delivery import put_object
from stemctl.dispatch.failures import PartsGoneError
from stemctl.dispatch.long import LongTrack
from stemctl.dispatch.long import Part as Home
from stemctl.dispatch.trip import transferred
from stemctl.dispatch.watch import Watcher
from stemctl.errors import InputError, WorkerError
from stemctl.places.bucket import Bucket
from stemctl.places.objects import list_objects, look_at_object, remove_object, sign
from stemctl.places.outputs import RECORDS, hidden_name
from stemctl.worker.client import BadResultError

PARTS = f"{RECORDS}/parts"
"""Where they lie, under the bucket's prefix, in a folder for each track."""
AT_ONCE = 4
"""So many parts a worker fetches at a time."""
HEADER = 4096
"""The head of a WAV file has fewer bytes."""
WIDTHS = {BitDepth.B16: 2, BitDepth.B24: 3, BitDepth.F32: 4}


class Deposit(BaseModel):
    """One stem of a part: where it lies, and what it is."""

    model_config = ConfigDict(frozen=True)

    url: str
    """``s3://bucket/key``"""
    size: int
    sha256: str


async def deposit(
    trip: Trip, job_id: str, told: Segments, segment: Segment, bucket: Bucket, to: Path
) -> None:
    """Let a worker put a finished segment into the bucket, and keep what tells of it in ``to``.

    Raises:
        InputError: this machine may not look at the bucket.
        BadResultError: the segment cannot be what it should.
        WorkerError: the worker could not put it there.
        OSError: ``to`` cannot be written.
    """
    worker, frames = trip.member.worker, segment.end_frame - segment.start_frame
    samples = frames * told.channels * WIDTHS[told.sample_format]
    # Whoever else brings the same must not write over it.
    name = f"{segment.start_frame}-{segment.end_frame}-{secrets.token_hex(4)}"
    for stem in told.stems:
        url = bucket.url(f"{PARTS}/{hidden_name(trip.track)}/{name}/{stem}.wav")
        state = await put_object(
            trip,
            url,
            partial(worker.deliver_segment, job_id, segment.index, stem),
            partial(worker.segment_delivery, job_id, segment.index, stem),
            lambda _sent: trip.goes_on(),
        )
        if not samples < state.size < samples + HEADER or state.sha256 is None:
            raise BadResultError(
                f"worker {trip.slot}: a segment of {frames} frames has {state.size} bytes"
            )
        kept = Deposit(url=url, size=state.size, sha256=state.sha256)
        await to_thread.run_sync((to / f"{stem}.json").write_text, kept.model_dump_json())


async def withdraw(trip: Trip, long: LongTrack, watcher: Watcher) -> list[Part]:
    """Let a worker fetch all parts of a track, for a job that joins them.

    Raises:
        InputError: this machine may not look at the bucket.
        PartsGoneError: some are not there any more; the track has forgotten them.
        WorkerError: the worker could not fetch them.
    """
    wanted = await to_thread.run_sync(lambda: list(_deposits(long)))
    lost: list[Home] = [home for home, _, kept in wanted if kept is None]
    done = 0
    failures: list[WorkerError | InputError] = []
    limit = anyio.CapacityLimiter(AT_ONCE)

    async def fetch(home: Home, kept: Deposit) -> None:
        nonlocal done
        try:
            async with limit:
                state = await _fetched(trip, kept)
            if state.status is FetchStatus.FAILED:
                there = await to_thread.run_sync(look_at_object, kept.url)
                spoiled = state.error_type == "digest-mismatch"
                if not spoiled and there is not None and there.size == kept.size:
                    raise WorkerError(f"worker {trip.slot}: {kept.url}: {state.error}")
                lost.append(home)
        except (WorkerError, InputError) as error:  # the group would wrap it
            failures.append(error)
            fetching.cancel_scope.cancel()
            return
        done += 1
        trip.at("uploading", done / len(wanted))
        watcher.moved(trip)

    async with anyio.create_task_group() as fetching:
        for home, _, kept in wanted:
            if kept is not None:
                fetching.start_soon(fetch, home, kept)
    if lost:
        for home in lost:
            await to_thread.run_sync(long.drop, home)
        raise PartsGoneError(f"parts of {trip.track.name} are no longer in the bucket")
    if failures:
        raise failures[0]
    return [
        Part(
            start_frame=home.span.start,
            end_frame=home.span.end,
            stem=stem,
            input_sha256=kept.sha256,
        )
        for home, stem, kept in wanted
        if kept is not None
    ]


def remove_parts(bucket: Bucket, tracks: Iterable[Track]) -> None:
    """Remove what lies in the bucket of the parts of some tracks; blocks, raises `InputError`."""
    folders = tuple(bucket.key(f"{PARTS}/{hidden_name(track)}/") for track in tracks)
    for key, _ in list(list_objects(bucket.url(f"{PARTS}/"))):
        if key.startswith(folders):
            remove_object(bucket.url_of(key))


def _deposits(long: LongTrack) -> Iterator[tuple[Home, str, Deposit | None]]:
    for home in long.parts:
        for stem, path in home.files.items():
            try:
                yield home, stem, Deposit.model_validate_json(path.read_bytes())
            except (OSError, ValidationError):
                yield home, stem, None


async def _fetched(trip: Trip, kept: Deposit) -> Fetch:
    worker, signed = trip.member.worker, await to_thread.run_sync(sign, kept.url)
    state = await worker.fetch_input(kept.sha256, signed)
    return await transferred(trip, state, partial(worker.fetching, kept.sha256))
