"""Vast.ai's market as this process knows it: asked once for many rentals, no offer tried twice."""

from __future__ import annotations

import math
import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any

from stemfleet.clouds import vast_rows
from stemfleet.clouds.base import GpuFilter, NoCapacityError, Offer
from stemfleet.clouds.offers import choose
from stemfleet.clouds.vast_api import VastApi

DISK_GB = 40.0
"""Where a group asks for no more: the image with its weights, and room for songs."""

FRESH_SECONDS = 60.0
"""How old the market may be that an offer is chosen from."""


def disk_gb(want: GpuFilter) -> float:
    """What a machine is rented with, in GB."""
    return want.disk_gb or DISK_GB


class Market:
    """The offers of one account's market, shared by all threads that rent."""

    def __init__(self, api: VastApi) -> None:
        self._api = api
        self._lock = threading.Lock()
        self._seen: dict[tuple[object, ...], tuple[float, list[Offer]]] = {}
        """The market by what was asked for: as of when, less what was tried since."""
        self._claimed: set[str] = set()
        """Offers that some thread tries to rent now."""

    def offers(self, want: GpuFilter) -> list[Offer]:
        """What could be rented now, the cheapest work first.

        Raises:
            NoCapacityError: nothing.
        """
        want = _on_this_market(want)
        return self._choose(self._search(want), want)

    def claim(self, want: GpuFilter, avoid: frozenset[str]) -> Offer:
        """The best offer that no other thread tries, until it is released.

        Raises:
            NoCapacityError: there is none.
        """
        want = _on_this_market(want)
        key = (want.count, want.spot, want.bid_usd_per_hour, want.disk_gb)
        with self._lock:
            at, market = self._seen.get(key, (-math.inf, []))
            best: Offer | None = None
            if self._api.pace.now() - at < FRESH_SECONDS:
                with suppress(NoCapacityError):
                    best = choose(market, want, avoid)[0]
            if best is None:
                # Claims of before count as well: what was rented while the answer came is in it.
                at, claimed = self._api.pace.now(), set(self._claimed)
                found = self._search(want)
                claimed |= self._claimed
                market = [one for one in found if one.id not in claimed]
                best = self._choose(market or found, want, avoid)[0]
            left = [one for one in market if (one.host or one.id) != (best.host or best.id)]
            self._seen[key] = (at, left)
            self._claimed.add(best.id)
            return best

    def release(self, offer: Offer) -> None:
        """The offer is rented, or was not to be had."""
        self._claimed.discard(offer.id)

    def _choose(
        self, market: list[Offer], want: GpuFilter, avoid: frozenset[str] = frozenset()
    ) -> list[Offer]:
        try:
            return choose(market, want, avoid)
        except NoCapacityError:
            # The whole market, whatever the count of GPUs: what excludes how many is to be told.
            return choose(self._search(want, any_count=True), want, avoid)

    def _search(self, want: GpuFilter, *, any_count: bool = False) -> list[Offer]:
        query: dict[str, Any] = {
            "rentable": {"eq": True},
            "rented": {"eq": False},
            "external": {"eq": False},
        }
        if not any_count:
            query["num_gpus"] = {"eq": want.count}
        rows = self._api.search(query, spot=want.spot, disk_gb=want.disk_gb or DISK_GB)
        bid = want.bid_usd_per_hour if want.spot else None
        found = [vast_rows.offer(row, bid=bid, spot=want.spot) for row in rows]
        offers = [one for one in found if one is not None]
        met = [one for one in offers if bid is None or one.usd_per_hour <= bid]
        if offers and not met:
            least = min(one.usd_per_hour for one in offers)
            raise NoCapacityError(
                f"the bid of {bid:g} $/h is too low: the least that is accepted on Vast.ai now is "
                f"{least:g} $/h. Raise bidUsdPerHour"
            )
        return met


def _on_this_market(want: GpuFilter) -> GpuFilter:
    """A worker is reached on a port of its machine; and every machine has a disk of some size."""
    return replace(want, direct_port=True, disk_gb=disk_gb(want))
