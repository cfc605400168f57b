"""RunPod as a cloud: pods known by their name, which is the label.

What makes renting safe here: the account's pods are listed before one is asked for, a question
without an answer is followed by a look for the pod, and from the moment that a pod may exist,
renting raises no more.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from stemfleet.clouds.base import (
    CloudError,
    GpuFilter,
    Machine,
    MachineState,
    NoCapacityError,
    Offer,
    RefusedError,
    UnreachableError,
    WorkerSpec,
)
from stemfleet.clouds.offers import choose
from stemfleet.clouds.runpod_api import ForbiddenError, Json, LostAnswerError, RunpodApi
from stemfleet.clouds.runpod_market import (
    Ask,
    asks,
    cuda_version,
    disk_gb,
    friendly,
    market,
    region,
    with_friendly_names,
)

KEY_VARIABLE = "RUNPOD_API_KEY"
URL_VARIABLE = "STEMFLEET_RUNPOD_URL"
PROXY_VARIABLE = "STEMFLEET_RUNPOD_PROXY"
URL = "https://api.runpod.io"
PROXY = "https://{pod}-{port}.proxy.runpod.net"
"""Where RunPod's proxy serves a pod's port, with a public certificate."""

CONSOLE = "https://console.runpod.io/pods"

PORT = 8185

SHARED_SECONDS = 15.0
"""So old may a list of pods be that many slots share when they look for what was rented before this
process began. What this process does itself is known to it in any case."""

CATALOG_SECONDS = 60.0
LAG_PAUSES = (0.5, 1.5, 3.0)
"""Before each look for a pod after a lost answer."""
POSTS = 3
DESTROY_SECONDS = 180.0

SPOT = """
mutation rent($input: PodRentInterruptableInput!) {
  podRentInterruptable(input: $input) { id name costPerHr desiredStatus }
}
"""
BALANCE = "query balance { myself { clientBalance currentSpendPerHr } }"


class Account:
    """RunPod under one key, as far as this process knows it. Shared by all its threads."""

    def __init__(self, api: RunpodApi) -> None:
        self.api = api
        self.rented: dict[str, str] = {}
        """Pod ids by label, of what this process has rented and not ended."""
        self._lock = threading.Lock()
        self._pods: dict[str, Json] = {}
        self._read_at = float("-inf")
        self._catalog_lock = threading.Lock()
        self._catalogs: dict[GpuFilter, tuple[float, list[Offer]]] = {}
        self._holds_lock = threading.Lock()
        self._holds: dict[str, threading.Lock] = {}

    def now(self) -> float:
        """Seconds of RunPod's time."""
        return self.api.pace.now()

    def pods(self, since: float) -> list[Json]:
        """All pods, by a list that was asked for after ``since`` (of `now`)."""
        # The lock is held while the list is on its way: threads that want one share it, and what
        # is rented meanwhile is added to it, not lost by it.
        with self._lock:
            if self._read_at < since:
                asked = self.now()
                self._pods = {str(pod["id"]): pod for pod in self.api.pods() if pod.get("id")}
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

    def market(self, want: GpuFilter) -> list[Offer]:
        """What is free, as of a minute ago at most."""
        with self._catalog_lock:
            at, offers = self._catalogs.get(want, (float("-inf"), []))
            if self.now() - at > CATALOG_SECONDS:
                offers = market(self.api, want)
                self._catalogs[want] = self.now(), offers
            return offers

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


class RunpodCloud:
    """RunPod, with the key of RUNPOD_API_KEY."""

    name = "runpod"

    @property
    def account(self) -> Account:
        """The account of the key.

        Raises:
            BadKeyError: there is no key.
        """
        url = os.environ.get(URL_VARIABLE) or URL
        return open_account(url.rstrip("/"), os.environ.get(KEY_VARIABLE, "").strip())

    def offers(self, want: GpuFilter) -> list[Offer]:
        """What could be rented now, the cheapest work first: a kind of GPU in a data center."""
        want = with_friendly_names(want)
        return choose(market(self.account.api, want), want)

    def balance(self) -> float | None:
        """What the account holds in USD."""
        myself = self.account.api.graphql(BALANCE, {}).get("myself") or {}
        balance = myself.get("clientBalance")
        if balance is None:
            raise UnreachableError("RunPod does not tell the account's balance: try again")
        return float(balance)

    def machines(self, label_prefix: str) -> list[Machine]:
        """Every pod whose name starts so, to the last page; of those with one label the best last."""
        account = self.account
        pods = account.pods(account.now())
        ours = [pod for pod in pods if str(pod.get("name") or "").startswith(label_prefix)]
        return [_machine(pod) for pod in sorted(ours, key=_worth)]

    def rent(
        self, want: GpuFilter, spec: WorkerSpec, avoid: frozenset[str] = frozenset()
    ) -> Machine:
        """The pod that carries the label: found, else rented. Its boot is not awaited.

        RunPod does not tell the physical machine, nor lets one choose it: there is none to avoid.
        """
        if not spec.image:
            raise RefusedError("a RunPod pod runs an image: give the group one (`image: …`)")
        want = with_friendly_names(want)
        account = self.account
        with account.holding(spec.label):
            pods = account.labelled(spec.label, account.now() - SHARED_SECONDS)
            good = [pod for pod in pods if _machine(pod).state is not MachineState.FAILED]
            best = max(good, key=_worth) if good else None
            if surplus := {str(pod["id"]) for pod in pods if pod is not best}:
                _end(account, spec.label, surplus)
            if best is not None:
                return _machine(best)
            return _rent(account, want, spec, choose(account.market(want), want))

    def destroy(self, label: str) -> None:
        """Terminate every pod that carries the label, until RunPod lists none."""
        with self.account.holding(label):
            _end(self.account, label)


def _rent(account: Account, want: GpuFilter, spec: WorkerSpec, offers: list[Offer]) -> Machine:
    refusals: list[str] = []
    forbidden: ForbiddenError | None = None
    for ask in asks(offers, want):
        where = f"{friendly(ask.gpu)} ({ask.cloud.lower()} cloud)"
        try:
            machine = _create(account, ask, want, spec)
        except NoCapacityError as error:
            refusals.append(f"{where}: {error}")
            continue
        except ForbiddenError as error:
            forbidden = error  # of a pool of GPUs, perhaps; the next kind is another
            refusals.append(f"{where}: {error}")
            continue
        cap = want.max_usd_per_hour
        if cap is None or machine.usd_per_hour <= cap or not machine.id:
            return machine
        try:
            _end(account, spec.label, {machine.id})
        except CloudError:
            return machine
        refusals.append(f"{where}: is billed at {machine.usd_per_hour:g} $/h, above the cap")
    if forbidden is not None and len(refusals) == 1:
        raise forbidden
    raise NoCapacityError(
        f"RunPod has no machine free for the group's filter. Asked for {'; '.join(refusals)}. "
        "Try again later, or loosen the filter"
    )


def _create(account: Account, ask: Ask, want: GpuFilter, spec: WorkerSpec) -> Machine:
    """A new pod. Whatever RunPod answers, or does not: none is left without a label in state."""
    for post in range(1, POSTS + 1):
        try:
            pod = _post(account.api, ask, want, spec)
        except LostAnswerError as error:
            try:
                pods = _look_for(account, spec.label)
            except CloudError:
                # It may exist, and nobody can say: the slot stands in state, and is looked for.
                return Machine(
                    id="",
                    label=spec.label,
                    state=MachineState.STARTING,
                    url=None,
                    gpu=friendly(ask.gpu),
                    usd_per_hour=ask.usd_per_hour,
                    region="",
                    detail=str(error),
                )
            if not pods and post == POSTS:
                raise
            if not pods:
                continue
            pod = max(pods, key=_worth)
            if surplus := {str(one["id"]) for one in pods if one is not pod}:
                with suppress(CloudError):
                    _end(account, spec.label, surplus)
        account.add(spec.label, pod)
        return _machine(pod | {"cost": pod.get("cost") or ask.usd_per_hour})
    raise AssertionError("the last attempt ends with a pod or an error")


def _look_for(account: Account, label: str) -> list[Json]:
    for pause in LAG_PAUSES:
        account.api.pace.sleep(pause)
        if pods := account.labelled(label, account.now()):
            return pods
    return []


def _post(api: RunpodApi, ask: Ask, want: GpuFilter, spec: WorkerSpec) -> Json:
    port = f"{PORT}/tcp" if want.direct_port else f"{PORT}/http"
    if ask.bid_usd_per_gpu is None:
        gpu: Json = {"id": ask.gpu, "count": want.count}
        if want.cuda is not None:
            gpu["minCudaVersion"] = cuda_version(want.cuda)
        body: Json = {
            "name": spec.label,
            "image": spec.image,
            "gpu": gpu,
            "cloud": ask.cloud,
            "disk": disk_gb(want),
            "ports": [port],
            "env": _environment(spec),
        }
        if ask.data_centers:
            body["dataCenterIds"] = list(ask.data_centers)
        pod = api.create_pod(body)
    else:
        given = {
            "name": spec.label,
            "imageName": spec.image,
            "gpuTypeId": ask.gpu,
            "gpuCount": want.count,
            "cloudType": ask.cloud,
            "bidPerGpu": ask.bid_usd_per_gpu,
            "containerDiskInGb": disk_gb(want),
            "volumeInGb": 0,
            "ports": port,
            "supportPublicIp": want.direct_port,
            "startSsh": False,
            "dockerArgs": "",
            "env": [{"key": k, "value": v} for k, v in _environment(spec).items()],
        }
        if ask.data_centers:
            given["dataCenterId"] = ask.data_centers[0]
        rented = api.graphql(SPOT, {"input": given}, once=True).get("podRentInterruptable")
        if rented is None:
            raise NoCapacityError("no spot machine is free")
        pod = {
            "id": rented.get("id"),
            "name": spec.label,
            "status": "PROVISIONING",
            "cost": rented.get("costPerHr"),
            "gpu": {"id": ask.gpu},
            "ports": [port],
        }
    if not pod.get("id"):
        raise LostAnswerError("RunPod rented a pod and does not say which")
    return pod


def _environment(spec: WorkerSpec) -> dict[str, str]:
    """What the worker in the container is told. The account's key is not among it."""
    told = {
        "STEMSERVE_TOKEN": spec.token,
        "STEMSERVE_PRESET": spec.preset,
        "STEMSERVE_HOST": "0.0.0.0",  # noqa: S104 - the container's, behind RunPod's mapping
        "STEMSERVE_PORT": str(PORT),
    }
    if spec.certificate is not None:
        told["STEMSERVE_TLS_CERT"] = spec.certificate.certificate
        told["STEMSERVE_TLS_KEY"] = spec.certificate.key
    if spec.idle_minutes is not None:
        told["STEMSERVE_IDLE_MINUTES"] = f"{spec.idle_minutes:g}"
    if spec.lease_hours is not None:
        told["STEMSERVE_LEASE_HOURS"] = f"{spec.lease_hours:g}"
    return told


def _end(account: Account, label: str, ids: set[str] | None = None) -> None:
    """Terminate the pods that carry the label, or of them ``ids``, until RunPod lists none of them.

    Raises:
        CloudError: they are listed to the last, or a list or a termination failed.
    """
    end = account.now() + DESTROY_SECONDS
    since, pause = account.now() - SHARED_SECONDS, 0.2
    told: set[str] = set()
    clear = 0
    while True:
        left = {str(pod["id"]) for pod in account.labelled(label, since)}
        if ids is not None:
            left &= ids
        clear = 0 if left else clear + 1
        # Of what was never seen, two lists are needed to say that it does not exist: one may lag.
        if clear == (1 if told else 2):
            return
        if account.now() > end:
            raise CloudError(
                f"RunPod still lists pod {', '.join(sorted(left))} ({label}) after "
                f"{DESTROY_SECONDS:.0f} s, though it was told to terminate it: look at "
                f"{CONSOLE}, then try again"
            )
        for id_ in left:
            account.api.terminate_pod(id_)
        if account.rented.get(label) in left:
            del account.rented[label]
        told |= left
        account.api.pace.sleep(pause)
        since, pause = account.now(), min(pause * 1.5, 5.0)


def _machine(pod: Json) -> Machine:
    """A pod as a machine. Reads leniently: a pod that exists must not be lost for a field."""
    status = str(pod.get("status"))
    url = _url(pod)
    if status in ("EXITED", "ERROR", "TERMINATED"):
        state = MachineState.FAILED
    elif status == "RUNNING" and url is not None and pod.get("runtime"):
        state = MachineState.RUNNING
    else:
        state = MachineState.STARTING
    waits = "" if url else "; its port is not mapped yet"
    return Machine(
        id=str(pod["id"]),
        label=str(pod.get("name") or ""),
        state=state,
        url=None if state is MachineState.FAILED else url,
        gpu=friendly(str((pod.get("gpu") or {}).get("id") or "")),
        usd_per_hour=float(pod.get("cost") or 0.0),
        region=region(pod.get("dataCenterId")),
        detail=f"pod {pod['id']} is {status.lower()}{waits}; log: {CONSOLE}",
    )


def _url(pod: Json) -> str | None:
    """Where its worker is or will be: through the proxy at once, directly once it is mapped."""
    if f"{PORT}/tcp" not in (pod.get("ports") or ()):
        template = os.environ.get(PROXY_VARIABLE) or PROXY
        return template.replace("{pod}", str(pod["id"])).replace("{port}", str(PORT))
    scheme = "https" if (pod.get("env") or {}).get("STEMSERVE_TLS_CERT") else "http"
    for port in (pod.get("runtime") or {}).get("ports") or ():
        if port.get("private") == PORT and port.get("type") == "tcp":
            address, public = str(port.get("ip") or "").strip(), port.get("public")
            if address and public:
                return f"{scheme}://{address}:{public}"
    return None


def _worth(pod: Json) -> tuple[Any, ...]:
    """Sorts the pod to keep to the end: none that failed, rather one that runs, the oldest."""
    state = _machine(pod).state
    rank = [MachineState.FAILED, MachineState.STARTING, MachineState.RUNNING].index(state)
    age = [-ord(c) for c in str(pod.get("createdAt") or "")]
    return rank, age, str(pod["id"])
