"""Vast.ai: machines of many owners, rented by the hour from a market of offers.

A worker's port is mapped to one of its host's, so only offers with direct ports are taken. What a
worker is given lies in its container's environment; the account's key is not among it.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from stemfleet.clouds import vast_rows
from stemfleet.clouds.base import (
    CloudError,
    GpuFilter,
    Machine,
    MachineState,
    NoCapacityError,
    Offer,
    RateLimitedError,
    RefusedError,
    UnreachableError,
    WorkerSpec,
)
from stemfleet.clouds.container import PORT, environment
from stemfleet.clouds.vast_api import DEFAULT_URL, URL_VARIABLE, VastApi, find_key
from stemfleet.clouds.vast_errors import LeftBehindError, OfferGoneError
from stemfleet.clouds.vast_market import Market, disk_gb

COMMAND = ("serve",)
"""What the image's entrypoint, `stemserve`, is told; all else is in the environment."""

ENVIRONMENT_LIMIT = 32_768
CANDIDATES = 12
"""Offers that are tried before a rental is given up: each try takes a turn of seconds."""

SEEN_SECONDS = 3.0
"""How old a list of machines may be for who only looks."""

LOST_ANSWERS = 3
"""Rentals without an answer and without a machine, after which Vast.ai is given up."""

APPEAR_SECONDS = 20.0
"""In which a machine that was rented without an answer shows in the list."""

LOOK_SECONDS = 2.0
AGAIN_SECONDS = 15.0
"""After which a machine that is still listed is destroyed again."""

DESTROY_SECONDS = 180.0


@dataclass
class _Account:
    """What the threads of a process share of one account."""

    api: VastApi
    market: Market
    listing: threading.Lock = field(default_factory=threading.Lock)
    """Held while all machines are listed: who comes meanwhile is served with the same list."""
    seen: tuple[float, object, list[Machine]] = (-math.inf, None, [])
    """All machines: as of when, and after which change."""
    change: object = None
    """Stands for the last rental or destruction by this process."""
    rented: dict[int, tuple[float, Machine]] = field(default_factory=dict)
    """What this process has rented, and when, by id; a list may not show it yet."""
    doubted: set[str] = field(default_factory=set)
    """Labels under which a rental without an answer may have made a machine after all."""


_accounts: dict[tuple[str, str], _Account] = {}
_finding = threading.Lock()


def _account(url: str, key: str) -> _Account:
    """The same one for every thread that asks: they are to take turns."""
    with _finding:
        if (url, key) not in _accounts:
            api = VastApi(url, key)
            _accounts[url, key] = _Account(api, Market(api))
        return _accounts[url, key]


class VastCloud:
    """The account that the environment's key belongs to."""

    name = "vast"

    def __init__(self) -> None:
        """Take the key from VAST_API_KEY or VASTAI_API_KEY.

        Raises:
            BadKeyError: there is none.
        """
        self._account = _account(os.environ.get(URL_VARIABLE) or DEFAULT_URL, find_key())
        self._api = self._account.api
        self._pace = self._api.pace

    def offers(self, want: GpuFilter) -> list[Offer]:
        """What could be rented now, the cheapest work first."""
        return self._account.market.offers(want)

    def balance(self) -> float | None:
        """The account's credit."""
        return self._api.credit()

    def machines(self, label_prefix: str) -> list[Machine]:
        """Every machine whose label starts so, as it was at most some seconds ago."""
        seen_at, listed = self._list()
        found = {int(one.id): one for one in listed}
        for id_, (at, machine) in list(self._account.rented.items()):
            if id_ not in found and seen_at - at < APPEAR_SECONDS:
                found[id_] = machine
        for label in sorted(self._account.doubted):
            self._settle([one for one in found.values() if one.label == label], found)
        return [one for one in found.values() if one.label.startswith(label_prefix)]

    def rent(
        self, want: GpuFilter, spec: WorkerSpec, avoid: frozenset[str] = frozenset()
    ) -> Machine:
        """The machine that carries the label, if it is of use; else another."""
        terms = _terms(spec)
        found = self._labelled(spec.label)
        if keep := _best(found, avoid):
            self._end_others(keep, found)
            return keep
        if found:
            self.destroy(spec.label)
        return self._rent_another(want, spec, terms, avoid)

    def destroy(self, label: str) -> None:
        """Destroy what carries the label until the list shows none, twice in a row.

        Twice, as one list may have been made before a machine was in it.
        """
        rented = list(self._account.rented.items())
        unlisted = {id_ for id_, (_, machine) in rented if machine.label == label}
        again_at: dict[int, float] = {}
        end = self._pace.now() + DESTROY_SECONDS
        empty = 0
        while empty < 2:
            listed = {int(one.id) for one in self._labelled(label)}
            now, failure = self._pace.now(), None
            for id_ in sorted(listed | unlisted):
                if now >= again_at.get(id_, now):
                    try:
                        self._end(id_)
                    except (RateLimitedError, RefusedError, UnreachableError) as error:
                        failure = error
                    else:
                        again_at[id_] = now + AGAIN_SECONDS
                        unlisted.discard(id_)
            empty = 0 if listed or failure else empty + 1
            if not empty:
                if now > end:
                    raise CloudError(_still_there(label, listed | unlisted, failure))
                self._pace.sleep(LOOK_SECONDS)

    def _rent_another(
        self, want: GpuFilter, spec: WorkerSpec, terms: dict[str, Any], avoid: frozenset[str]
    ) -> Machine:
        market = self._account.market
        secrets = [spec.token, *([spec.certificate.key] if spec.certificate else ())]
        tried: frozenset[str] = frozenset()
        lost = 0
        for _ in range(CANDIDATES):
            offer = market.claim(want, avoid | tried)
            tried |= {offer.host} if offer.host else set()
            terms |= {"disk": disk_gb(want), "price": offer.usd_per_hour if want.spot else None}
            try:
                id_ = self._api.rent(int(offer.id), secrets, **terms)
            except OfferGoneError:
                continue
            except LeftBehindError as error:
                self._rented(_just_rented(error.id, offer, spec.label))
                self._end(error.id)
                continue
            except UnreachableError as error:
                self._account.change = object()
                if landed := self._await_listed(spec.label, avoid, error):
                    return self._sole(landed, avoid)
                self._account.doubted.add(spec.label)
                lost += 1
                if lost == LOST_ANSWERS:
                    raise
                continue
            finally:
                market.release(offer)
            return self._sole(self._rented(_just_rented(id_, offer, spec.label)), avoid)
        raise NoCapacityError(
            f"{CANDIDATES} offers in a row were gone before they could be rented: "
            "try again, or let the group's filter meet more of them"
        )

    def _sole(self, machine: Machine, avoid: frozenset[str]) -> Machine:
        """The machine, or a better one of its label, once the others of it are ended.

        It is paid for: nothing raises.
        """
        keep = machine
        with suppress(CloudError):
            found = self._labelled(machine.label)
            all_ = [machine, *(one for one in found if one.id != machine.id)]
            keep = _best(all_, avoid) or machine
            self._end_others(keep, all_)
        return keep

    def _settle(self, same: list[Machine], found: dict[int, Machine]) -> None:
        """End what has come to light beside the machine that was rented in its place."""
        known = [one for one in same if int(one.id) in self._account.rented]
        keep = _best(known, frozenset()) or _best(same, frozenset())
        for other in same:
            if keep is not None and other.id != keep.id:
                with suppress(CloudError):  # who looks next meets it again
                    self._end(int(other.id))
                    del found[int(other.id)]

    def _end_others(self, keep: Machine, found: Iterable[Machine]) -> None:
        for other in found:
            if other.id != keep.id:
                self._end(int(other.id))

    def _rented(self, machine: Machine) -> Machine:
        self._account.rented[int(machine.id)] = (self._pace.now(), machine)
        self._account.change = object()
        return machine

    def _end(self, id_: int) -> None:
        self._api.destroy(id_)
        self._account.rented.pop(id_, None)
        self._account.change = object()

    def _await_listed(
        self, label: str, avoid: frozenset[str], lost: UnreachableError
    ) -> Machine | None:
        """What a rental without an answer has rented, if it has."""
        end = self._pace.now() + APPEAR_SECONDS
        try:
            while True:
                looked_at = self._pace.now()
                landed = _best(self._labelled(label), avoid)
                if landed or looked_at >= end:
                    return landed
                self._pace.sleep(LOOK_SECONDS)
        except CloudError as error:
            raise UnreachableError(
                f"{label}: {lost}; nor can it be told whether it was rented ({error}). "
                "The next `pulumi up` finds it by its label, as does `pulumi destroy`"
            ) from None

    def _labelled(self, label: str) -> list[Machine]:
        """What carries the label, as it is now."""
        rows = self._api.machines({"label": {"eq": label}})
        return [one for one in map(vast_rows.machine, rows) if one.label == label]

    def _list(self) -> tuple[float, list[Machine]]:
        """All machines, and as of when."""
        account = self._account
        with account.listing:
            at, change, machines = account.seen
            if change is not account.change or self._pace.now() - at > SEEN_SECONDS:
                at, change = self._pace.now(), account.change
                # That there is nothing at all is believed when it is said twice.
                rows = self._api.machines() or self._api.machines()
                machines = [vast_rows.machine(row) for row in rows]
                account.seen = (at, change, machines)
            return at, machines


def _best(found: list[Machine], avoid: frozenset[str]) -> Machine | None:
    """Of machines under one label the one to keep: one that runs, or else the oldest."""
    useful = [
        one
        for one in found
        if one.state is not MachineState.FAILED and (not one.host or one.host not in avoid)
    ]
    return min(
        useful,
        key=lambda one: (one.state is not MachineState.RUNNING, int(one.id)),
        default=None,
    )


def _terms(spec: WorkerSpec) -> dict[str, Any]:
    """What a machine is rented with, whatever the offer.

    Raises:
        RefusedError: Vast.ai would refuse it.
    """
    if not spec.image:
        raise RefusedError(
            f"{spec.label}: a machine on Vast.ai runs an image: set the group's `image`"
        )
    told = {f"-p {PORT}:{PORT}": "1", **environment(spec)}
    if sum(len(f"{name}={value}") + 1 for name, value in told.items()) > ENVIRONMENT_LIMIT:
        raise RefusedError(
            f"{spec.label}: its environment is over {ENVIRONMENT_LIMIT} bytes: "
            "a certificate that long cannot be handed to a machine on Vast.ai"
        )
    return {
        "image": spec.image,
        "label": spec.label,
        "env": told,
        "runtype": "args",
        "args": list(COMMAND),
        "cancel_unavail": True,
    }


def _just_rented(id_: int, offer: Offer, label: str) -> Machine:
    return Machine(
        id=str(id_),
        label=label,
        state=MachineState.STARTING,
        url=None,
        gpu=offer.gpu,
        usd_per_hour=offer.usd_per_hour,
        region=offer.region,
        detail=f"rented (machine {id_} on Vast.ai)",
        host=offer.host,
    )


def _still_there(label: str, ids: set[int], failure: CloudError | None) -> str:
    machines = ", ".join(map(str, sorted(ids))) or "that carries it"
    return (
        f"{label}: machine {machines} is still there after {DESTROY_SECONDS:.0f} s of destroying"
        f"{f' ({failure})' if failure else ''}: try again, or end it at "
        "https://cloud.vast.ai/instances/"
    )
