"""RunPod, emulated: an account with credit, a catalog, and pods that live by the cloud's clock.

`RunpodEmulator` holds the state; `runpod_rest` shows it as REST v2 (and 410 for v1),
`runpod_graphql` as GraphQL, `runpod_http` serves both, and the proxy to the pods. Texts, shapes and
rules are those of RunPod's OpenAPI document of August 2026 and of what its users report.
"""

from __future__ import annotations

import itertools
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tests.clouds.clock import Clock
from tests.clouds.faults import MACHINE, Faults, Request
from tests.clouds.ledger import Contract, Ledger
from tests.clouds.machines import Nothing, Running, StandIn, Start
from tests.clouds.runpod_wish import GpuWish, RefusalError, Wish

NO_INSTANCES = (
    "There are no longer any instances available with the requested specifications. "
    "Please refresh and try again."
)
SECURE, COMMUNITY = "SECURE", "COMMUNITY"
PROVISIONING, STARTING, RUNNING = "PROVISIONING", "STARTING", "RUNNING"
EXITED, ERROR, TERMINATED = "EXITED", "ERROR", "TERMINATED"
ACTIONS = {
    PROVISIONING: ["stop", "terminate"],
    STARTING: ["stop", "terminate"],
    RUNNING: ["stop", "restart", "terminate"],
    EXITED: ["start", "terminate"],
    ERROR: ["start", "terminate"],
    TERMINATED: [],
}
CRASH_SECONDS = 15.0
BAD_ADDRESSES: dict[str, str | None] = {"no-address": None, "spaces": " 127.0.0.1\n"}


@dataclass(frozen=True)
class Kind:
    """A kind of GPU. Prices in USD per hour and GPU."""

    id: str
    name: str
    memory: int
    secure: float
    community: float
    least_bid: float
    stock: dict[tuple[str, str], str]
    """What is said of it: HIGH … NONE, by cloud and data center."""
    cuda: tuple[str, ...] = ("12.4", "12.8")


def catalog() -> list[Kind]:
    """A small market: what is cheap, what is fast, and what is sold out."""
    us, ro, se = (SECURE, "US-KS-2"), (SECURE, "EU-RO-1"), (SECURE, "EU-SE-1")
    home = (COMMUNITY, "US-TX-1")
    return [
        Kind(
            "NVIDIA GeForce RTX 4090",
            "RTX 4090",
            24,
            0.69,
            0.34,
            0.2,
            {us: "HIGH", ro: "HIGH", home: "MEDIUM"},
        ),
        Kind("NVIDIA GeForce RTX 3090", "RTX 3090", 24, 0.46, 0.22, 0.11, {ro: "LOW", home: "LOW"}),
        Kind("NVIDIA H100 80GB HBM3", "H100 SXM", 80, 2.99, 2.69, 1.75, {us: "LOW", se: "HIGH"}),
        Kind("NVIDIA RTX A4000", "RTX A4000", 16, 0.25, 0.17, 0.1, {se: "HIGH"}),
        Kind("NVIDIA L4", "L4", 24, 0.39, 0.0, 0.3, {se: "NONE"}),
    ]


@dataclass
class Pod:
    """A pod. Times are the cloud's; ``fate`` is how it goes wrong (see `RunpodEmulator.fates`)."""

    id: str
    name: str
    image: str
    kind: Kind
    count: int
    cloud: str
    data_center: str
    host: str
    cost: float
    ports: list[str]
    env: dict[str, str]
    disk: int
    args: str
    key: str
    created_at: float
    made: datetime
    """When, as its owner's clock shows it."""
    spot: bool = False
    fate: str = ""
    ended: str = ""
    """EXITED, ERROR or TERMINATED, once it is."""
    running: Running | None = None
    remaps: int = 0
    listed_for: int = 0
    """How many lists still show it though it is terminated."""


class RunpodEmulator:
    """One account. Knobs are attributes, to be set before what they concern is asked for."""

    fates = (
        "stuck-provisioning",
        "stuck-starting",
        "no-runtime",
        "no-port",
        "other-port",
        *BAD_ADDRESSES,
        "error",
        "exits",
        "crash-loop",
        "unhealthy",
        "wrong-token",
        "vanishes",
    )

    def __init__(self, start: Start = StandIn, rate: float = 60.0, credit: float = 100.0) -> None:
        """``start`` runs a pod's container. Seconds of the cloud pass at ``rate``."""
        self.clock = Clock(rate)
        self.faults = Faults()
        self.ledger = Ledger()
        self.kinds = catalog()
        self.key = "rpa_" + secrets.token_hex(16).upper()
        self.credit = credit
        self.limits = {"minute": (600, 60), "hour": (30_000, 3600)}
        """Requests and seconds of each window."""
        self.page_size: int | None = None
        self.list_lag_s = 0.0
        self.sticky_lists = 0
        self.boot_s = (4.0, 4.0, 2.0)
        """Seconds in PROVISIONING, in STARTING, and in RUNNING without ports."""
        self.pod_key_terminates = True
        self.hosts = 1000
        """Machines of each kind in each data center."""
        self.url = ""
        self._start = start
        self._lock = threading.RLock()
        self._pods: dict[str, Pod] = {}
        self._numbers = itertools.count(1)
        self._billed_at = 0.0

    @contextmanager
    def serve(self) -> Iterator[RunpodEmulator]:
        """Answer on loopback at ``url``; everything that runs ends with it."""
        from tests.clouds.runpod_http import serving

        try:
            with serving(self) as self.url:
                yield self
        finally:
            for pod in self._pods.values():
                if pod.running is not None:
                    pod.running.stop()

    @property
    def environment(self) -> dict[str, str]:
        """What leads the adapter here."""
        return {
            "RUNPOD_API_KEY": self.key,
            "STEMFLEET_RUNPOD_URL": self.url,
            "STEMFLEET_RUNPOD_PROXY": f"{self.url}/proxy/{{pod}}/{{port}}",
            "STEMFLEET_CLOUD_CLOCK": f"{self.clock.rate:g}",
        }

    def rent(self, wish: Wish, request: Request, *, bid: float | None = None) -> Pod:
        """A new pod; ``bid`` in USD per hour and GPU."""
        with self._lock:
            self._bill()
            if self.credit <= 0:
                raise RefusalError(402, "Insufficient balance. Add credit to deploy a pod.")
            gpu = wish.gpu or GpuWish(id="")
            kind = next((one for one in self.kinds if one.id == gpu.id), None)
            if kind is None:
                raise RefusalError(404, f"gpu type {gpu.id} not found")
            if bid is not None and bid < kind.least_bid:
                raise RefusalError(400, f"Bid too low: the minimum is {kind.least_bid}")
            data_center, host = self._place(kind, wish, gpu)
            per_gpu = kind.secure if wish.cloud == SECURE else kind.community
            fate = self.faults.take(MACHINE, request)
            assert fate is None or fate.fate in self.fates, f"no such fate: {fate}"
            pod = Pod(
                id=f"{secrets.token_hex(5)}{next(self._numbers):04d}",
                name=wish.name,
                image=wish.image,
                kind=kind,
                count=gpu.count,
                cloud=wish.cloud,
                data_center=data_center,
                host=host,
                cost=round((bid or per_gpu) * gpu.count, 4),
                ports=list(wish.ports),
                env=dict(wish.env),
                disk=wish.disk,
                args=wish.args,
                key="rpod_" + secrets.token_hex(12),
                created_at=self.clock.now(),
                made=datetime.now(UTC),
                spot=bid is not None,
                fate=fate.fate if fate else "",
                listed_for=self.sticky_lists,
            )
            self._pods[pod.id] = pod
            environment = self._environment(pod)
            self.ledger.open(
                Contract(pod.id, pod.name, host, pod.created_at, environment=environment)
            )
            return pod

    def pods(self, *, listing: bool = False) -> list[Pod]:
        """Pods that exist, as they are now; for a list, as that shows them."""
        with self._lock:
            self._bill()
            shown = []
            for pod in self._pods.values():
                self._live(pod)
                if listing and self.clock.now() < pod.created_at + self.list_lag_s:
                    continue
                if pod.ended == TERMINATED:
                    if not listing or pod.listed_for <= 0:
                        continue
                    pod.listed_for -= 1
                shown.append(pod)
            return shown

    def find(self, id_: str) -> Pod:
        """A pod that exists."""
        for pod in self.pods():
            if pod.id == id_:
                return pod
        raise RefusalError(404, "The requested Pod does not exist.")

    def status(self, pod: Pod) -> str:
        """Where it is in its life."""
        if pod.ended == TERMINATED and self.sticky_lists:
            return RUNNING  # the list has not noticed yet
        if pod.ended:
            return pod.ended
        age = self.clock.now() - pod.created_at
        if age < self.boot_s[0] or pod.fate == "stuck-provisioning":
            return PROVISIONING
        if age < sum(self.boot_s[:2]) or pod.fate == "stuck-starting":
            return STARTING
        return RUNNING

    def runtime(self, pod: Pod) -> dict[str, Any] | None:
        """What it reports of its container; None for a while after it runs."""
        age = self.clock.now() - pod.created_at - sum(self.boot_s[:2])
        if self.status(pod) != RUNNING or pod.ended or pod.fate == "no-runtime":
            return None
        if age < self.boot_s[2]:
            return None
        ports = []
        for port in pod.ports:
            number, _, kind = port.partition("/")
            address: str | None = "127.0.0.1"
            public = pod.running.port if pod.running else None
            if kind == "http":
                address, public = "100.65.13.88", 60_000 + pod.remaps
            if pod.fate == "no-port":
                public = None
            if pod.fate == "other-port":
                number = "22"
            if pod.fate in BAD_ADDRESSES:
                address = BAD_ADDRESSES[pod.fate]
            ports.append({"private": int(number), "public": public, "type": kind, "ip": address})
        uptime = age % CRASH_SECONDS if pod.fate == "crash-loop" else age
        return {"uptime": int(uptime), "gpus": [], "cpu": {}, "memory": {}, "ports": ports}

    def reset(self, pod: Pod) -> None:
        """Start its container anew: other ports, and whatever it held is gone."""
        with self._lock:
            if pod.running is not None:
                pod.running.stop()
            pod.running, pod.ended, pod.remaps = None, "", pod.remaps + 1
            pod.created_at = self.clock.now()

    def end(self, pod: Pod, how: str, by: str) -> None:
        """Stop or terminate a pod; what it runs is gone at once."""
        with self._lock:
            self._bill()
            self._stop(pod, how)
            if how == TERMINATED:
                self.ledger.close(pod.id, self.clock.now(), by)

    def named(self, name: str) -> Pod:
        """The one pod that exists under a name."""
        (pod,) = [pod for pod in self.pods() if pod.name == name]
        return pod

    def _place(self, kind: Kind, wish: Wish, gpu: GpuWish) -> tuple[str, str]:
        """A data center, and a machine in it that is free."""
        taken = {pod.host for pod in self._pods.values() if pod.ended != TERMINATED}
        floor = version(gpu.minCudaVersion or "0.0")
        exact = gpu.allowedCudaVersions or list(kind.cuda)
        met = any(version(one) >= floor and one in exact for one in kind.cuda)
        for (cloud, place), level in kind.stock.items():
            if cloud != wish.cloud or level == "NONE" or not met:
                continue
            if wish.dataCenterIds and place not in wish.dataCenterIds:
                continue
            for number in range(self.hosts):
                host = f"{place}-{kind.name}-{number}".lower().replace(" ", "")
                if host not in taken:
                    return place, host
        raise RefusalError(400, NO_INSTANCES)

    def _environment(self, pod: Pod) -> dict[str, str]:
        return pod.env | {
            "RUNPOD_POD_ID": pod.id,
            "RUNPOD_API_KEY": pod.key,
            "RUNPOD_DC_ID": pod.data_center,
            "RUNPOD_GPU_COUNT": str(pod.count),
            "STEMSERVE_RUNPOD_URL": self.url,
        }

    def _live(self, pod: Pod) -> None:
        """Let happen what the clock says has happened."""
        if pod.ended or self.status(pod) != RUNNING:
            return
        if pod.fate in ("error", "exits", "vanishes"):
            ends = {"error": ERROR, "exits": EXITED, "vanishes": TERMINATED}
            self.end(pod, ends[pod.fate], "runpod")
        elif pod.running is None:
            hollow = pod.fate in ("no-runtime", "crash-loop", "unhealthy")
            environment = self._environment(pod)
            hollow = hollow or "STEMSERVE_TOKEN" not in environment  # whatever that is, no worker
            if pod.fate == "wrong-token":
                environment["STEMSERVE_TOKEN"] = "another"
            start: Callable[..., Running] = Nothing if hollow else self._start
            pod.running = start(environment, pod.args.split())

    def _bill(self) -> None:
        now = self.clock.now()
        hours, self._billed_at = (now - self._billed_at) / 3600, now
        for pod in self._pods.values():
            if not pod.ended:
                self.ledger.bill(pod.id, pod.cost * hours)
                self.credit -= pod.cost * hours
        if self.credit <= 0:
            for pod in self._pods.values():
                if not pod.ended:
                    self._stop(pod, EXITED)

    def _stop(self, pod: Pod, how: str) -> None:
        pod.ended = how
        if pod.running is not None:
            pod.running.stop()
            pod.running = None


def version(text: str) -> tuple[int, ...]:
    """12.11 is above 12.2."""
    return tuple(int(part) for part in text.split("."))
