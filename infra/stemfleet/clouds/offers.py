"""Which of the offers on a market meet a filter, and which of those is the best.

Best is what separates a track for the least money: price over expected speed. Every adapter brings
its market's rows into the form of `Offer` and lets this choose, so that a filter means the same on
every cloud.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from stemfleet.clouds.base import GpuFilter, NoCapacityError, Offer

RENTED = GpuFilter(vram_gb=12, reliability=0.97, inet_down_mbps=200, disk_gb=40)
"""What is asked for where nothing else is said: a card that holds the largest ensemble, a host that
stays up, a download of the image in minutes, room for the image, its weights and songs."""

SPEEDS = {
    "RTX 3060": 0.45,
    "RTX 3070": 0.62,
    "RTX 3080": 0.85,
    "RTX 3090": 1.0,
    "RTX 4060 Ti": 0.62,
    "RTX 4070": 0.85,
    "RTX 4080": 1.4,
    "RTX 4090": 2.0,
    "RTX 5080": 1.6,
    "RTX 5090": 2.6,
    "RTX A4000": 0.6,
    "RTX A5000": 0.85,
    "RTX A6000": 1.0,
    "RTX 6000 Ada": 2.0,
    "A10": 0.8,
    "A40": 0.95,
    "A100 PCIE": 1.7,
    "A100 SXM4": 1.8,
    "L4": 0.7,
    "L40": 1.8,
    "L40S": 2.0,
    "H100 PCIE": 2.6,
    "H100 SXM": 3.2,
    "H200": 3.4,
    "B200": 4.5,
    "Tesla V100": 0.8,
    "Tesla T4": 0.35,
}
"""Expected speed of one GPU, an RTX 3090's being 1: from published fp16/fp32 rates and memory
bandwidths, for ranking before anything was measured."""

UNKNOWN_SPEED = 0.5

SIZES_GB = (4, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 80, 96, 141, 180, 192, 288)
"""Memories with which cards are sold."""

MARKETING_SLACK = 0.93
"""A card sold as 24 GB reports 24,564 MB, one sold as 80 GB 79.6 or less: what a card reports may
fall this far short of what it is sold as."""


def speed(offer: Offer) -> float:
    """Expected speed of all its GPUs, an RTX 3090's being 1."""
    return expected_speed(offer.gpu) * offer.gpu_count


def expected_speed(gpu: str) -> float:
    """Expected speed of one GPU of that name, an RTX 3090's being 1."""
    return _SPEEDS.get(normal(gpu), UNKNOWN_SPEED)


def cost(offer: Offer) -> float:
    """USD for as much work as an RTX 3090 does in an hour."""
    return offer.usd_per_hour / speed(offer)


def sold_gb(vram_gb: float) -> int:
    """A card's memory as it is sold, of what a market reports: 24 for 24.564."""
    return min(SIZES_GB, key=lambda size: abs(size - vram_gb))


def unmet(offer: Offer, want: GpuFilter) -> list[str]:
    """The conditions of a filter that an offer does not meet, by their names in the config.

    What a cloud does not tell (None) is not held against an offer.
    """
    places = [part.strip() for part in offer.region.upper().split(",")]

    def within(names: tuple[str, ...]) -> bool:
        return any(
            place == name.upper() or place.startswith(f"{name.upper()}-")
            for name in names
            for place in places
        )

    def least(value: float | None, wanted: float | None) -> bool:
        return value is None or wanted is None or value >= wanted

    vram = want.vram_gb * MARKETING_SLACK if want.vram_gb else None
    conditions = {
        "names": not want.names or normal(offer.gpu) in {normal(name) for name in want.names},
        "count": offer.gpu_count == want.count,
        "vramGb": least(offer.vram_gb, vram),
        "maxUsdPerHour": want.max_usd_per_hour is None
        or offer.usd_per_hour <= want.max_usd_per_hour,
        "reliability": least(offer.reliability, want.reliability),
        "verified": want.verified is None or offer.verified in (None, want.verified),
        "regions": not want.regions or within(want.regions),
        "notRegions": not within(want.not_regions),
        "inetDownMbps": least(offer.inet_down_mbps, want.inet_down_mbps),
        "diskGb": least(offer.disk_gb, want.disk_gb),
        "cuda": least(offer.cuda, want.cuda),
        "spot": offer.spot == want.spot,
        "directPort": not want.direct_port or offer.direct_port is not False,
    }
    return [name for name, met in conditions.items() if not met]


def normal(name: str) -> str:
    """A GPU's name without what people and clouds write differently."""
    words = name.upper().replace("_", " ").replace("NVIDIA", "").replace("GEFORCE", "").split()
    return "".join(words)


_SPEEDS = {normal(name): figure for name, figure in SPEEDS.items()}


def choose(
    market: Iterable[Offer], want: GpuFilter, avoid: frozenset[str] = frozenset()
) -> list[Offer]:
    """The offers that meet the filter, the cheapest work first, one for each physical machine.

    Raises:
        NoCapacityError: none does; says how many each condition excludes.
    """
    offers = list(market)
    excluded: Counter[str] = Counter()
    best: dict[str, Offer] = {}
    for offer in sorted(offers, key=lambda offer: (cost(offer), offer.id)):
        reasons = unmet(offer, want)
        if offer.host and offer.host in avoid:
            reasons.append("machines that failed before")
        if reasons:
            excluded.update(reasons)
        else:
            best.setdefault(offer.host or offer.id, offer)
    if best:
        return list(best.values())
    if not offers:
        raise NoCapacityError("the market offers nothing now: try again later, or another cloud")
    parts = ", ".join(f"{name} excludes {number}" for name, number in excluded.most_common())
    raise NoCapacityError(
        f"none of {len(offers)} offers meets the group's filter: {parts}. Loosen the condition "
        "that excludes the most"
    )
