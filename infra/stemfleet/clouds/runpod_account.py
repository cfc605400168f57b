"""What this process knows of a RunPod account: shared by its threads, never older than is safe.

A fleet is rented by several threads under one limit of requests, so they share what they list. What
this process has rented is known to it even while RunPod's lists do not show it yet.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress

from stemfleet.clouds.base import CloudError, GpuFilter, Offer, UnreachableError
from stemfleet.clouds.runpod_api import Json, RunpodApi
from stemfleet.clouds.runpod_market import Ask, market
from stemfleet.clouds.runpod_pods import CONSOLE

SHARED_SECONDS = 15.0
"""So old may a list of pods be that many slots share when they look for what was rented before this
process began."""

LAG_SECONDS = 30.0
"""So long after its renting a pod counts as there though no list shows it yet."""

LOOK_SECONDS = 1.0
"""So old may it be when they look at what is there."""

CATALOG_SECONDS = 60.0
DESTROY_SECONDS = 180.0
LAG_PAUSES = (0.5, 1.5, 3.0)
"""Before each look for a pod after a lost answer."""

HOSTS = "query hosts { myself { pods { id machineId } } }"


class Account:
    """RunPod under one key, as far as this process knows it. Shared by all its threads."""

    def __init__(self, api: RunpodApi) -> None:
        self.api = api
        self.rented: dict[str, str] = {}
        """Pod ids by label, of what this process has rented and not ended."""
        self.doubted: set[str] = set()
        """Labels for which an answer was lost: a pod that was asked for then may show late."""
        self._gone: dict[Ask, float] = {}
        self._lock = threading.Lock()
        self._pods: dict[str, Json] = {}
        self._read_at = float("-inf")
        self._rented_at: dict[str, float] = {}
        self._failure: UnreachableError | None = None
        self._failed_at = float("-inf")
        self._catalog_lock = threading.Lock()
        self._catalogs: dict[GpuFilter, tuple[float, list[Offer]]] = {}
        self._hosts: dict[str, str] = {}
        self._holds_lock = threading.Lock()
        self._holds: dict[str, threading.Lock] = {}

    def now(self) -> float:
        """Seconds of RunPod's time."""
        return self.api.pace.now()

    def pods(self, since: float) -> list[Json]:
        """All pods, by a list that was asked for after ``since`` (of `now`)."""
        # The lock is held while the list is on its way: threads that want one share it, and what
        # is rented meanwhile is added to it, not lost by it. They share its failure as well.
        entered = self.now()
        with self._lock:
            if self._failure is not None and self._failed_at >= entered:
                raise UnreachableError(str(self._failure))
            if self._read_at < since:
                asked = self.now()
                try:
                    listed = {str(pod["id"]): pod for pod in self.api.pods()}
                except UnreachableError as error:
                    self._failure, self._failed_at = error, self.now()
                    raise
                self._rented_at = {
                    id_: at
                    for id_, at in self._rented_at.items()
                    if id_ not in listed and at > asked - LAG_SECONDS
                }
                unlisted = {id_: self._pods[id_] for id_ in self._rented_at}
                self._pods = unlisted | listed
                self._read_at = asked
            return list(self._pods.values())

    def labelled(self, label: str, since: float) -> list[Json]:
        """The pods that carry a label and are not terminated, in whatever state."""
        pods = [pod for pod in self.pods(since) if pod.get("name") == label]
        own = self.rented.get(label)
        if own and own not in [pod["id"] for pod in pods] and (pod := self.api.pod(own)):
            pods.append(pod)  # listed with a lag
        return [pod for pod in pods if pod.get("status") != "TERMINATED"]

    def add(self, label: str, pod: Json) -> None:
        """This process has rented a pod."""
        with self._lock:
            self._pods[str(pod["id"])] = pod
            self.rented[label] = str(pod["id"])
            self._rented_at[str(pod["id"])] = self.now()

    def _forget(self, label: str, ids: set[str]) -> None:
        """These were told to end: what is listed of them counts."""
        with self._lock:
            if self.rented.get(label) in ids:
                del self.rented[label]
            for id_ in ids:
                self._rented_at.pop(id_, None)

    def market(self, want: GpuFilter) -> list[Offer]:
        """What is free, as of a minute ago at most."""
        with self._catalog_lock:
            at, offers = self._catalogs.get(want, (float("-inf"), []))
            if self.now() - at > CATALOG_SECONDS:
                offers = market(self.api, want)
                self._catalogs[want] = self.now(), offers
            return offers

    def note_gone(self, ask: Ask) -> None:
        """There is none of this kind now, whatever the catalog says."""
        self._gone[ask] = self.now()

    def likely_first(self, kinds: list[Ask]) -> list[Ask]:
        """The kinds in their order, but those of which there was none lately at the end."""
        since = self.now() - CATALOG_SECONDS
        return sorted(kinds, key=lambda ask: self._gone.get(ask, float("-inf")) > since)

    def look_for(self, label: str, but: Collection[str]) -> list[Json]:
        """The pods with a label, apart from some, once there are any; waits a little for them."""
        for pause in LAG_PAUSES:
            self.api.pace.sleep(pause)
            pods = [pod for pod in self.labelled(label, self.now()) if pod["id"] not in but]
            if pods:
                return pods
        return []

    def end(self, label: str, ids: Collection[str] | None = None) -> None:
        """Terminate the pods that carry the label, or ``ids``, until RunPod lists none of them.

        Raises:
            CloudError: they are listed to the last, or a list or a termination failed.
        """
        if ids is not None and not ids:
            return
        end, pause = self.now() + DESTROY_SECONDS, 0.5
        since = self.now() - SHARED_SECONDS
        left, told = set(ids or ()), set(ids or ())
        clear = 0
        while True:
            for id_ in left:
                self.api.terminate_pod(id_)
            if left:
                told |= left
                self._forget(label, left)
                # One list tells of all that was ended before it was asked for.
                since = self.now()
                self.api.pace.sleep(pause)
                pause = min(pause * 1.5, 5.0)
            listed = {str(pod["id"]) for pod in self.labelled(label, since)}
            left = listed if ids is None else listed & set(ids)
            clear = 0 if left else clear + 1
            # Of what was never seen, two lists have to say that it does not exist: one may lag.
            if clear == (1 if told else 2):
                return
            if self.now() > end:
                raise CloudError(
                    f"RunPod still lists pod {', '.join(sorted(left))} ({label}) after "
                    f"{DESTROY_SECONDS:.0f} s, though it was told to terminate it: look at "
                    f"{CONSOLE}, then try again"
                )
            if not left:
                self.api.pace.sleep(pause)
                since = self.now()

    def hosts(self, ids: Iterable[str]) -> dict[str, str]:
        """The physical machine of each pod, as far as it is told. REST v2 does not.

        It is good to know, and nothing depends on it: that it cannot be had is no error.
        """
        unknown = [id_ for id_ in ids if id_ not in self._hosts]
        if unknown:
            told: dict[str, str] = {}
            with suppress(CloudError, KeyError, TypeError):
                rows = self.api.graphql(HOSTS, {}, once=True)["myself"]["pods"]
                told = {str(row["id"]): str(row["machineId"] or "") for row in rows}
            self._hosts |= {id_: told.get(id_, "") for id_ in unknown}
        return self._hosts

    @contextmanager
    def holding(self, label: str) -> Iterator[None]:
        """One thread at a time rents or ends what carries a label."""
        with self._holds_lock:
            lock = self._holds.setdefault(label, threading.Lock())
        with lock:
            yield


_accounts: dict[tuple[str, str], Account] = {}
_accounts_lock = threading.Lock()


def open_account(url: str, key: str) -> Account:
    """What this process knows of the account with this key, the same for all its threads."""
    with _accounts_lock:
        if (url, key) not in _accounts:
            _accounts[url, key] = Account(RunpodApi(url, key))
        return _accounts[url, key]
