"""Stems into a bucket: the workers put them there, and nothing of them passes through here.

This machine signs a URL for each file when its turn comes, and sees in the store that what has
come is what was made. A track's record is an object too. It is written twice: first, so that what
lies there after a cut is known as ours, and last, when all is there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from anyio import to_thread
from pydantic import ValidationError
from stemserve.schema import Delivery, DeliveryStatus, Job, ResultFile

from stemctl.asked.track import Track
from stemctl.dispatch.crew import Trip
from stemctl.dispatch.failures import DeliveryFailedError
from stemctl.dispatch.trip import transferred
from stemctl.dispatch.watch import Watcher
from stemctl.places.bucket import Bucket
from stemctl.places.objects import (
    list_objects,
    look_at_object,
    read_object,
    remove_object,
    sign_put,
    write_object,
)
from stemctl.places.outputs import Origin, Record, judge, record_place

READERS = 16


class Contents:
    """What lies in a bucket at the beginning of a run.

    Making it blocks, and raises `InputError` where the bucket cannot be read.
    """

    def __init__(self, bucket: Bucket, tracks: Sequence[Track]) -> None:
        self._bucket = bucket
        before = len(bucket.key(""))
        self._sizes = {key[before:]: size for key, size in list_objects(bucket.url(""))}
        self._folders = {key.rpartition("/")[0] for key in self._sizes}
        known = [track for track in tracks if record_place(track) in self._sizes]
        with ThreadPoolExecutor(READERS) as pool:
            records = pool.map(lambda track: _read_record(bucket, track), known)
        self._records = dict(zip((track.place for track in known), records, strict=True))

    def is_done(self, track: Track, *, overwrite: bool) -> bool:
        """Whether all that is wanted of a track is there; see `stemctl.places.outputs.is_done`."""
        record = self._records.get(track.place)
        if track.own_folder:
            foreign = record is None and track.place in self._folders
        else:
            ours = record.places if record else ()
            foreign = any(file in self._sizes for file in track.files if file not in ours)
        there = [self._sizes.get(file) for file in _places(track, record)] if record else []
        if all(size is None for size in there):
            there = []
        where = self._bucket.url(track.place)
        return judge(where, track, record, there, foreign=foreign, overwrite=overwrite)


async def deliver(
    trip: Trip,
    job: Job,
    files: Sequence[ResultFile],
    bucket: Bucket,
    origin: Origin,
    watcher: Watcher,
) -> None:
    """Let a worker put a job's files at their places in a bucket, and see that they are there.

    Raises:
        InputError: this machine may not look at the bucket or write the record.
        WorkerError: the worker could not do it.
    """
    track = trip.track
    places = () if track.own_folder else track.files
    record = Record(wanted=track.wanted, origin=origin, files=tuple(files), places=places)
    begun = record.model_copy(update={"begun": True})
    await to_thread.run_sync(_begin, bucket, track, begun)
    worker, total, done = trip.member.worker, sum(file.size for file in files) or 1, 0
    for file, place in zip(files, track.files, strict=True):

        def moved(sent: int, before: int = done) -> None:
            trip.at("downloading", (before + sent) / total)
            watcher.moved(trip)

        await put_object(
            trip,
            bucket.url(place),
            partial(worker.deliver, job.job_id, file.name),
            partial(worker.delivery, job.job_id, file.name),
            moved,
        )
        done += file.size
    await to_thread.run_sync(_write_record, bucket, track, record)


def _begin(bucket: Bucket, track: Track, record: Record) -> None:
    before = _read_record(bucket, track)
    _write_record(bucket, track, record)
    for place in _places(track, before) if before else ():
        if place not in track.files:
            remove_object(bucket.url(place))


async def put_object(
    trip: Trip,
    url: str,
    ask: Callable[[str], Awaitable[Delivery]],
    look: Callable[[], Awaitable[Delivery]],
    moved: Callable[[int], None] = lambda _sent: None,
) -> Delivery:
    """Let a worker put one object, and see that it is there.

    Args:
        trip: What it is for.
        url: ``s3://bucket/key``
        ask: Asks the worker for it, by a signed URL.
        look: Asks how far it is.
        moved: Is told of the bytes that have gone.

    Raises:
        InputError: this machine may not look at it.
        WorkerError: the worker could not do it.
    """
    signed = await to_thread.run_sync(sign_put, url)
    state = await transferred(trip, await ask(signed), look, moved)
    if state.status is DeliveryStatus.FAILED:
        raise DeliveryFailedError(f"worker {trip.slot} could not write {url}: {state.error}")
    there = await to_thread.run_sync(look_at_object, url)
    if there is None or there.size != state.size:
        has = "nothing" if there is None else f"{there.size} bytes"
        raise DeliveryFailedError(
            f"worker {trip.slot} has written {state.size} bytes to {url}, where there is {has}"
        )
    if there.md5 and state.md5 and there.md5 != state.md5:
        raise DeliveryFailedError(f"{url} is not what worker {trip.slot} has sent")
    return state


def _places(track: Track, record: Record) -> Sequence[str]:
    """Where the files of a record are."""
    return record.places or [f"{track.place}/{file.name}" for file in record.files]


def _read_record(bucket: Bucket, track: Track) -> Record | None:
    content = read_object(bucket.url(record_place(track)))
    try:
        record = Record.model_validate_json(content or b"")
    except ValidationError:
        return None
    return record if track.own_folder or len(record.places) == len(record.files) else None


def _write_record(bucket: Bucket, track: Track, record: Record) -> None:
    write_object(bucket.url(record_place(track)), record.model_dump_json(indent=1).encode())
