"""The emulated Vast.ai's machines: each a state that follows from its fate and the time.

Nothing moves by itself. `Instance.step` brings a machine to where it is by now, and is called for
every machine at every request.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.clouds.machines import Running, Start

Row = dict[str, Any]

WORKER_PORT = 8185
LAGS = {"lag": 15.0, "long-lag": 90.0}

OFFERED = (
    "machine_id",
    "host_id",
    "gpu_name",
    "num_gpus",
    "gpu_ram",
    "geolocation",
    "inet_up",
    "inet_down",
    "min_bid",
    "verification",
    "reliability2",
)
"""What a machine's row has from the offer that it was."""

FATES = {
    "phantom": "a rental that succeeds, of a machine that never is",
    "bid-too-low": "is refused, yet made, and stopped",
    "lag": "not in lists for 15 s",
    "long-lag": "not in lists for 90 s",
    "stuck-null": "never prepared",
    "stuck-created": "never pulls its image",
    "stuck-loading": "pulls its image for ever",
    "slow-boot": "takes ten times as long",
    "oci-error": "its container cannot be created",
    "pull-error": "its image is not there",
    "ports-null": "runs without a mapped port",
    "ports-wrong": "maps another port",
    "ip-null": "has no address",
    "ip-spaces": "has an address with blanks around it",
    "offline": "its host is lost while it loads, for ever",
    "unknown-then-back": "its host is lost for a while",
    "outbid-a": "is outbid once it runs: meant to run, yet stopped",
    "outbid-b": "is outbid once it runs: meant to be stopped",
    "exits": "its container ends once it runs",
    "unhealthy": "runs, and nobody answers",
    "sticky-delete": "stays in lists for a while after it was destroyed",
    "deaf-delete": "is not destroyed at first, though the answer says so",
}
"""What may become of a machine, by the name under which a test arms it."""


@dataclass(frozen=True)
class Boot:
    """When a machine reaches each state, in seconds of the cloud after it was rented."""

    listed: float = 0.5
    created: float = 2.0
    loading: float = 5.0
    running: float = 50.0
    ports: float = 60.0


@dataclass
class Instance:
    """One machine, rented."""

    id: int
    offer: Row
    request: Row
    usd_per_hour: float
    created_at: float
    boot: Boot
    fate: str
    start: Start
    url: str
    """The cloud's own, for the worker that ends its machine."""
    key: str = field(default_factory=lambda: secrets.token_hex(16))
    actual: str | None = None
    intended: str = "running"
    current: str = "running"
    following: str = "running"
    message: str = ""
    ports: dict[str, list[dict[str, str]]] | None = None
    address: str | None = None
    worker: Running | None = None
    lost: str | None = None
    """`offline` or `unknown`: what the API shows while the host does not answer."""
    deleted_polls: int | None = None
    """Set once it was destroyed: in how many lists it still shows."""

    @property
    def label(self) -> str:
        """Which may have been changed since."""
        return self.request.get("label") or ""

    def listed(self, now: float) -> bool:
        """Whether a list shows it."""
        lag = LAGS.get(self.fate, self.boot.listed)
        return self.fate != "phantom" and now - self.created_at >= lag

    def stop(
        self, message: str = "", *, intended: str = "stopped", actual: str = "stopped"
    ) -> None:
        """Its container ends; its disk is still paid for."""
        self.actual, self.intended, self.message = actual, intended, message
        self.current = self.following = "stopped" if intended == "stopped" else intended
        self.ports = None
        self.end_worker()

    def end_worker(self) -> None:
        """What ran on it is gone."""
        if self.worker is not None:
            self.worker.stop()
            self.worker = None

    def step(self, now: float) -> None:
        """Go on to where the machine is by now."""
        age = (now - self.created_at) / (10 if self.fate == "slow-boot" else 1)
        if self.intended != "running" or self.actual in ("stopped", "exited"):
            return
        if self.fate == "stuck-null" or age < self.boot.created:
            return
        self.actual, self.message = self.actual or "created", self.message or "Creating"
        if self.fate == "oci-error":
            self.stop(
                "Error response from daemon: OCI runtime create failed: nvidia-container-cli: "
                "device error: unknown",
                actual="created",
            )
            return
        if self.fate == "stuck-created" or age < self.boot.loading:
            return
        if self.actual == "created":
            self.actual, self.message = "loading", "Pulling image"
        if self.fate == "pull-error":
            image = self.request["image"]
            self.message = f"Error response from daemon: pull access denied for {image}"
            return
        self._lose_host(age)
        if self.fate == "stuck-loading" or self.lost or age < self.boot.running:
            return
        self.actual, self.message = "running", f"success, running {self.request['image']}"
        self._serve(age)

    def _lose_host(self, age: float) -> None:
        if self.fate == "offline":
            self.lost = "offline"
        elif self.fate == "unknown-then-back":
            self.lost = "unknown" if age < self.boot.running * 1.5 else None

    def _serve(self, age: float) -> None:
        if self.worker is None:
            self.worker = self.start(self.environment(), self.request.get("args") or [])
        if age < self.boot.ports:
            return
        if self.fate in ("outbid-a", "outbid-b"):
            self.stop(intended="running" if self.fate == "outbid-a" else "stopped")
        elif self.fate == "exits":
            self.stop("exited (1)", intended="running", actual="exited")
        elif self.fate not in ("ports-null", "ip-null"):
            self.address = " 127.0.0.1\n" if self.fate == "ip-spaces" else "127.0.0.1"
        if self.actual == "running" and self.fate != "ports-null":
            self.ports = self._mapped()

    def _mapped(self) -> dict[str, list[dict[str, str]]]:
        assert self.worker is not None
        if f"-p {WORKER_PORT}:{WORKER_PORT}" not in self.request["env"]:
            return {}
        port = 22 if self.fate == "ports-wrong" else WORKER_PORT
        mapped = str(self.worker.port)
        return {
            f"{port}/tcp": [
                {"HostIp": "0.0.0.0", "HostPort": mapped},
                {"HostIp": "::", "HostPort": mapped},
            ]
        }

    def environment(self) -> dict[str, str]:
        """What its container is given: by who rented it, and by Vast.ai."""
        given: Mapping[str, str] = self.request["env"]
        return {name: value for name, value in given.items() if not name.startswith("-")} | {
            "CONTAINER_API_KEY": self.key,
            "CONTAINER_ID": str(self.id),
            "VAST_CONTAINERLABEL": f"C.{self.id}",
            "PUBLIC_IPADDR": "127.0.0.1",
            "GPU_COUNT": str(self.offer["num_gpus"]),
            f"VAST_TCP_PORT_{WORKER_PORT}": "0",
            "STEMSERVE_VAST_URL": self.url,
        }

    def row(self) -> Row:
        """As the API shows it."""
        environment = [[name, value] for name, value in self.request["env"].items()]
        return {name: self.offer[name] for name in OFFERED} | {
            "id": self.id,
            "label": self.request.get("label"),
            "actual_status": self.lost or self.actual,
            "intended_status": self.intended,
            "cur_state": self.current,
            "next_state": self.following,
            "status_msg": self.message or None,
            "ports": self.ports,
            "public_ipaddr": self.address,
            "direct_port_start": None,
            "direct_port_end": None,
            "ssh_host": "ssh5.vast.ai",
            "ssh_port": 10_000 + self.id % 1000,
            "dph_total": self.usd_per_hour,
            "is_bid": self.request.get("price") is not None,
            "start_date": 1_760_000_000.0 + self.created_at,
            "end_date": None,
            "extra_env": environment,
            "image_uuid": self.request["image"],
        }
