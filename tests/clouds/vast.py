"""Vast.ai emulated on loopback, for its unmodified SDK.

It follows what is known of the real API, and refuses what that would refuse. Serve it in a thread
of a test, or by itself: ``python -m tests.clouds.vast`` prints the environment that leads to it.
"""

from __future__ import annotations

import argparse
import json
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any, Self

from tests.clouds.clock import Clock
from tests.clouds.faults import MACHINE, Faults, Request
from tests.clouds.ledger import Contract, Ledger
from tests.clouds.machines import Nothing, RealWorker, StandIn, Start
from tests.clouds.vast_http import Server
from tests.clouds.vast_instances import FATES, Boot, Instance
from tests.clouds.vast_market import BadQueryError, make_market, matches, priced, search
from tests.clouds.vast_rental import (
    ApiError,
    TooManyError,
    check_rental,
    json_object,
    no_such_ask,
)

Json = dict[str, Any]

THRESHOLDS = {
    "search": 6.0,
    "rent": 4.5,
    "show": 2.0,
    "list": 1.0,
    "destroy": 3.0,
    "change": 1.0,
    "reboot": 1.0,
    "bid": 5.5,
    "command": 1.5,
    "ssh": 1.0,
}
"""Seconds that the calls of one key to an endpoint must keep apart."""

PENALTIES = {"rent": 12.0}
"""Seconds until the next call, after one that came too early."""

JITTER_SECONDS = 0.03
"""Real seconds by which a call may be early: threads do not run on time on a busy machine."""

LIST_COLUMNS = frozenset({"id", "label", "actual_status", "gpu_name", "verification"})
PAGE = 25


class VastEmulator:
    """One account of Vast.ai, its market and its machines. A context: it serves while it lasts."""

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        offers: Iterable[Json] | None = None,
        start: Start = Nothing,
        boot: Boot | None = None,
        credit: float = 100.0,
        limits: bool = True,
    ) -> None:
        self.clock = clock or Clock()
        self.faults = Faults()
        self.ledger = Ledger()
        self.key = secrets.token_hex(32)
        self.offers = {row["id"]: dict(row) for row in (offers or make_market(60))}
        self.credit = credit
        self.start, self.boot, self.limits = start, boot or Boot(), limits
        self.instances: dict[int, Instance] = {}
        self._free_at: dict[tuple[str, str], float] = {}
        self._next_id = 7_000_001
        self._settled_at = self.clock.now()
        self._lock = threading.RLock()
        self._server = Server()
        self._server.account = self
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        ).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            for instance in self.instances.values():
                instance.end_worker()

    def environment(self) -> dict[str, str]:
        """What leads the adapter, the SDK and Vast.ai's own command to this cloud."""
        return {
            "VAST_URL": self.url,
            "VAST_API_KEY": self.key,
            "STEMFLEET_CLOUD_CLOCK": repr(self.clock.rate or 1.0),
        }

    def find(self, label: str) -> Instance:
        """The one machine under a label."""
        with self._lock:
            (found,) = [one for one in self.instances.values() if one.label == label]
            return found

    def preempt(self, label: str, shape: str = "a") -> None:
        """Somebody bids more for the machine. The shapes: what the API then shows as intended."""
        with self._lock:
            self.find(label).stop(intended="running" if shape == "a" else "stopped")

    def vanish(self, label: str) -> None:
        """The machine is gone, by nobody's order."""
        with self._lock:
            self._remove(self.find(label), "the cloud")

    def lose_host(self, label: str, status: str | None = "offline") -> None:
        """The host no longer answers, or answers again (None)."""
        with self._lock:
            self.find(label).lost = status

    def rent_by_hand(self, label: str) -> Instance:
        """A machine that somebody with the same account has rented for himself."""
        with self._lock:
            offer = next(one for one in self.offers.values() if not one["rented"])
            request = {"image": "debian", "env": {}, "disk": 10, "label": label, "price": None}
            return self.instances[self._rent(offer, request)]

    def settle(self) -> None:
        """Bring machines and bills up to now."""
        with self._lock:
            now = self.clock.now()
            hours, self._settled_at = (now - self._settled_at) / 3600, now
            for one in self.instances.values():
                if one.deleted_polls is not None:
                    continue  # only the list still shows it
                one.step(now)
                paid = one.usd_per_hour if one.actual == "running" else one.usd_per_hour / 20
                self.ledger.bill(str(one.id), paid * hours)
                self.credit -= paid * hours
            if self.credit <= 0:
                for one in self.instances.values():
                    if one.intended == "running":
                        one.stop("Account lacks credit")

    # The API

    def answer(
        self, endpoint: str, ids: tuple[str, ...], request: Request, key: str
    ) -> tuple[int, Json | str]:
        """The status and the body of the answer to a request."""
        # In the order of arrival, one at a time, as each of them may change everything.
        with self._lock:
            self.settle()
            try:
                handler = self._handlers(key).get(endpoint)
                if handler is None:
                    raise ApiError(404, "not_found", request.path)
                self._check_key(key, endpoint, ids)
                self._check_pace(endpoint, key)
                return 200, handler(request, *ids)
            except ApiError as error:
                return error.status, error.body
            except TooManyError as error:
                return 429, str(error)
            except BadQueryError as error:
                return 400, {"success": False, "error": "invalid_args", "msg": str(error)}

    def _handlers(self, key: str) -> dict[str, Callable[..., Json]]:
        return {
            "search": self._search,
            "rent": self._asked_to_rent,
            "show": self._show,
            "list": self._list,
            "old-list": self._old_list,
            "change": self._change,
            "bid": self._bid,
            "reboot": self._done,
            "command": self._done,
            "destroy": partial(self._destroy, key=key),
            "user": lambda _request: {
                "id": 1,
                "credit": self.credit,
                "balance": 0.0,
                "email": "account@example.com",
                "username": "account",
            },
            "ssh": lambda _request: {"ssh_keys": []},
            "gpu-names": lambda _request: {
                "gpu_names": sorted({offer["gpu_name"] for offer in self.offers.values()})
            },
        }

    def _check_key(self, key: str, endpoint: str, ids: tuple[str, ...]) -> None:
        if key == self.key or endpoint == "gpu-names":
            return
        own = self.instances.get(int(ids[0])) if ids and endpoint != "rent" else None
        if own is None or own.key != key or endpoint not in ("show", "change", "destroy"):
            raise ApiError(401, "auth_error", "Invalid user key")

    def _check_pace(self, endpoint: str, key: str) -> None:
        threshold = THRESHOLDS.get(endpoint, 0.0)
        if not self.limits or not threshold:
            return
        now, who = self.clock.now(), (endpoint, key)
        if now + JITTER_SECONDS * self.clock.rate < self._free_at.get(who, 0.0):
            self._free_at[who] = now + PENALTIES.get(endpoint, threshold)
            raise TooManyError(
                f"API requests too frequent: endpoint threshold={self._free_at[who] - now:g}"
            )
        self._free_at[who] = now + threshold

    def _search(self, request: Request) -> Json:
        body = json_object(request.body)
        if request.method == "PUT":
            body = json_object(body.get("q"))
        free = [offer for offer in self.offers.values() if not offer["rented"]]
        return {"offers": search(free, body)}

    def _asked_to_rent(self, request: Request, id_: str) -> Json:
        body = json_object(request.body)
        check_rental(body)
        offer = self.offers.get(int(id_))
        if offer is None or offer["rented"] or not offer["rentable"]:
            raise no_such_ask(id_)
        if self.credit <= 0:
            raise ApiError(400, "insufficient_credit", "Insufficient credits")
        if body["disk"] > offer["disk_space"]:
            raise ApiError(400, "invalid_args", "not enough disk space on the machine")
        fault = self.faults.take(MACHINE, request)
        fate = fault.fate if fault else ""
        price = body.get("price")
        if fate == "bid-too-low" or (price is not None and price < offer["min_bid"]):
            rented = self._rent(offer, body)
            self.instances[rented].stop("Bid too low")
            raise ApiError(400, "insufficient_bid", "bid is too low", new_contract=rented)
        rented = self._rent(offer, body, fate)
        return {"success": True, "new_contract": rented, "instance_api_key": secrets.token_hex(8)}

    def _rent(self, offer: Json, body: Json, fate: str = "") -> int:
        if fate and fate not in FATES:
            raise KeyError(fate)
        id_, self._next_id = self._next_id, self._next_id + 1
        price = body.get("price")
        instance = Instance(
            id_,
            offer,
            body,
            priced(offer, body["disk"])["dph_total"] if price is None else price,
            self.clock.now(),
            self.boot,
            fate,
            Nothing if fate == "unhealthy" else self.start,
            self.url,
        )
        offer["rented"] = True
        label, host = instance.label, str(offer["machine_id"])
        given = instance.environment()
        self.ledger.open(Contract(str(id_), label, host, instance.created_at, environment=given))
        self.instances[id_] = instance
        if fate == "phantom":
            self._remove(instance, "the cloud")
        return id_

    def _existing(self, id_: str) -> Instance:
        instance = self.instances.get(int(id_))
        if instance is None or instance.fate == "phantom":
            raise ApiError(404, "no_such_instance", f"Instance {id_} not found")
        return instance

    def _done(self, _request: Request, id_: str) -> Json:
        self._existing(id_)
        return {"success": True}

    def _show(self, _request: Request, id_: str) -> Json:
        instance = self.instances.get(int(id_))
        listed = instance is not None and instance.listed(self.clock.now())
        return {"instances": instance.row() if instance and listed else None}

    def _list(self, request: Request) -> Json:
        limit = int(request.query.get("limit", PAGE))
        if not 1 <= limit <= PAGE:
            raise ApiError(400, "invalid_args", f"limit must be 1 to {PAGE}")
        filters = json_object(json.loads(request.query.get("select_filters", "{}")))
        if unknown := set(filters) - LIST_COLUMNS:
            raise ApiError(400, "invalid_args", f"cannot filter by {', '.join(sorted(unknown))}")
        after = int(request.query.get("after_token", 0))
        now = self.clock.now()
        found = [
            one
            for id_, one in sorted(self.instances.items())
            if one.listed(now) and matches(one.row(), filters)
        ]
        rest = [one for one in found if one.id > after]
        page = rest[:limit]
        for one in page:
            self._count_poll(one)
        return {
            "success": True,
            "instances": [one.row() for one in page],
            "total_instances": len(found),
            "next_token": str(page[-1].id) if len(rest) > limit else None,
        }

    def _count_poll(self, instance: Instance) -> None:
        """One that was destroyed leaves the list after it was seen in it some times more."""
        if instance.deleted_polls is not None:
            instance.deleted_polls -= 1
            if instance.deleted_polls <= 0:
                self.instances.pop(instance.id)

    def _old_list(self, _request: Request) -> Json:
        raise ApiError(410, "deprecated_endpoint", "use GET /api/v1/instances/")

    def _change(self, request: Request, id_: str) -> Json:
        instance, body = self._existing(id_), json_object(request.body)
        if set(body) - {"state", "label"} or not body:
            raise ApiError(400, "invalid_args", "state or label")
        if "label" in body:
            if len(body["label"]) > 256:
                raise ApiError(400, "label_too_long", "at most 256 characters")
            instance.request["label"] = body["label"]
        if body.get("state") == "stopped":
            instance.stop()
        elif body.get("state") == "running":
            instance.intended = instance.current = instance.following = "running"
            instance.actual, instance.created_at = None, self.clock.now()
        return {"success": True}

    def _bid(self, request: Request, id_: str) -> Json:
        instance, price = self._existing(id_), float(json_object(request.body)["price"])
        if not 0.001 <= price <= 128:
            raise ApiError(400, "invalid_price", "0.001 to 128")
        instance.request["price"] = instance.usd_per_hour = price
        return {"success": True}

    def _destroy(self, request: Request, id_: str = "", *, key: str) -> Json:
        ids = [id_] if id_ else [str(one) for one in json_object(request.body)["instance_ids"]]
        for one in ids:
            instance = self._existing(one)
            if instance.deleted_polls is not None:
                continue
            if instance.fate == "deaf-delete":
                instance.fate = ""
                continue
            self._remove(instance, "the account's key" if key == self.key else "its own key")
        return {"success": True, "msg": "destroyed"}

    def _remove(self, instance: Instance, by: str) -> None:
        instance.end_worker()
        self.ledger.close(str(instance.id), self.clock.now(), by)
        instance.offer["rented"] = False
        if instance.fate == "sticky-delete":
            instance.deleted_polls = 4
            instance.stop("destroying")
        else:
            self.instances.pop(instance.id)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m tests.clouds.vast", description=__doc__)
    parser.add_argument("--offers", type=int, default=60, help="machines on the market")
    parser.add_argument("--clock", type=float, default=1.0, help="its seconds in a real one")
    kinds: dict[str, Start] = {"real": RealWorker, "stand-in": StandIn, "nothing": Nothing}
    parser.add_argument("--machines", choices=kinds, default="real", help="what runs on a machine")
    arguments = parser.parse_args()
    # Its workers are to end with it, however it is asked to.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    start, clock = kinds[arguments.machines], Clock(arguments.clock)
    with VastEmulator(clock=clock, offers=make_market(arguments.offers), start=start) as cloud:
        for name, value in cloud.environment().items():
            print(f"export {name}={value}", flush=True)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
