"""The worker's errors: each a stable word for machines and a message that names a next step."""

from __future__ import annotations


class StemserveError(Exception):
    """Base of what a caller or an operator can mend. ``type`` is a stable word, kebab-case."""

    type = "error"


class SettingsError(StemserveError):
    """The worker cannot start with these settings."""

    type = "settings"


class RequestError(StemserveError):
    """What is asked for has no meaning: falling cut points, a bit depth of mp3."""

    type = "invalid-request"


class NotAudioError(StemserveError):
    """The input holds no audio that can be decoded: empty, no audio stream, DRM, cut short."""

    type = "not-audio"


class EmptyRangeError(StemserveError):
    """The track ends before the range that is wanted of it begins."""

    type = "empty-range"


class BadPartError(StemserveError):
    """A part that is to be taken over is not what this very job would have made."""

    type = "bad-part"


class PresetUnavailableError(StemserveError):
    """The preset exists, and this worker lacks something that it needs."""

    type = "preset-unavailable"


class DamagedWeightsError(PresetUnavailableError):
    """A file of weights is not what its digest says: cut short, replaced, another model's."""

    type = "weights-damaged"


class WeightsFetchError(StemserveError):
    """A file of weights could not be fetched, or what came was not what it should be."""

    type = "weights-not-fetched"


class UnknownNameError(StemserveError):
    """No preset or stem of that name. ``choices`` holds the names there are, the nearest first."""

    type = "unknown-name"

    def __init__(self, message: str, choices: list[str]) -> None:
        super().__init__(message)
        self.choices = choices


class NotReadyError(StemserveError):
    """The separation process is not up."""

    type = "not-ready"


class DiskFullError(StemserveError):
    """No room left where the worker keeps its files."""

    type = "disk-full"


class InputTooLargeError(StemserveError):
    """The input is larger than this worker takes."""

    type = "input-too-large"


class DigestMismatchError(StemserveError):
    """What was uploaded is not what its name says."""

    type = "digest-mismatch"


class UploadStalledError(StemserveError):
    """The sender of an input paused for too long, or went away."""

    type = "upload-stalled"


class NoSuchInputError(StemserveError):
    """The input was never uploaded, or is gone."""

    type = "no-such-input"


class NoSuchJobError(StemserveError):
    """There is no job of that id."""

    type = "no-such-job"


class JobExistsError(StemserveError):
    """There is a job of that id, and it asks for something else."""

    type = "job-exists"


class JobEndedError(StemserveError):
    """The job is over: there is nothing left to cancel."""

    type = "job-ended"


class JobRunningError(StemserveError):
    """What was asked cannot be done to a job that runs."""

    type = "job-running"


class NotCompletedError(StemserveError):
    """The job has no results, or none yet."""

    type = "not-completed"


class TooManyListenersError(StemserveError):
    """As many callers follow jobs as may."""

    type = "too-many-listeners"


class NotStartedError(StemserveError):
    """Nothing is known of the job's segments yet."""

    type = "not-started"


class SegmentsGoneError(StemserveError):
    """The samples of the job's segments are no longer kept."""

    type = "segments-gone"


class NoSuchSegmentError(StemserveError):
    """The job has no such segment, or has not finished it yet, or keeps no such stem."""

    type = "no-such-segment"

    def __init__(self, message: str, choices: list[str] | None = None) -> None:
        super().__init__(message)
        self.choices = choices


class ResultsGoneError(StemserveError):
    """The job had results, which are no longer kept."""

    type = "results-gone"


class NoSuchFileError(StemserveError):
    """The job has no result of that name. ``choices`` holds those it has, the nearest first."""

    type = "no-such-file"

    def __init__(self, message: str, choices: list[str]) -> None:
        super().__init__(message)
        self.choices = choices


class BadRangeError(StemserveError):
    """The file has no such part, or more than one part was asked for."""

    type = "bad-range"


class EndingError(StemserveError):
    """The worker ends itself and takes no more work."""

    type = "worker-ending"


class QueueFullError(StemserveError):
    """As many jobs wait as may."""

    type = "queue-full"


class FetchError(StemserveError):
    """An input_url could not be fetched."""

    type = "fetch-failed"


class DeliveryError(StemserveError):
    """A result or segment could not be sent to the URL that was given for it."""

    type = "delivery-failed"


class DeliveryRunningError(StemserveError):
    """The result or segment is on its way to another URL."""

    type = "delivery-running"


class NoSuchDeliveryError(StemserveError):
    """The result or segment was not sent anywhere since this worker started."""

    type = "no-such-delivery"


class TooManyDeliveriesError(StemserveError):
    """As many results are on their way as may."""

    type = "too-many-deliveries"


class NoSuchFetchError(StemserveError):
    """The input was not fetched from anywhere since this worker started."""

    type = "no-such-fetch"


class TooManyFetchesError(StemserveError):
    """As many inputs are being fetched as may."""

    type = "too-many-fetches"


class SeparationDiedError(StemserveError):
    """The separation process ended, hung or spoke nonsense, in mid-job or before one."""

    type = "separation-died"


class SeparationFailedError(StemserveError):
    """The separation of one input failed; ``type`` is the word that the separation gave."""

    def __init__(self, message: str, word: str) -> None:
        super().__init__(message)
        self.type = word


class StoppedError(StemserveError):
    """A signal asked the program to stop."""

    type = "stopped"

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class TrackTooLongError(StemserveError):
    """The track is longer than this worker takes."""

    type = "track-too-long"


class TooManyChannelsError(StemserveError):
    """The track has more channels than this worker takes."""

    type = "too-many-channels"


class DeviceLostError(StemserveError):
    """The GPU failed in mid-work; this process can do no more with it."""

    type = "device-lost"


class OutOfMemoryError(StemserveError):
    """A single window, alone on the device, does not fit into its memory."""

    type = "out-of-memory"
