"""RunPod's catalog as offers, and an offer as what to ask RunPod for.

RunPod has no search and rents out no machine by name: it takes a kind of GPU, one of its two clouds
and a choice of data centers. So an offer here is a kind of GPU in one cloud and one data center.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from stemfleet.clouds.base import GpuFilter, NoCapacityError, Offer, UnreachableError
from stemfleet.clouds.offers import SPEEDS, normal
from stemfleet.clouds.runpod_api import RunpodApi

SECURE, COMMUNITY = "SECURE", "COMMUNITY"

DISK_GB = 40
"""Of a pod whose group asks for none: the image's own layers do not count."""

DISK_USD_PER_GB_HOUR = 0.10 / 730
"""A running pod's container disk is 0.10 USD a GB and month (RunPod's page of prices)."""

FRIENDLY = {
    "NVIDIA A100 80GB PCIe": "A100 PCIE",
    "NVIDIA A100-SXM4-80GB": "A100 SXM4",
    "NVIDIA H100 80GB HBM3": "H100 SXM",
    "NVIDIA H100 PCIe": "H100 PCIE",
    "NVIDIA H100 NVL": "H100 NVL",
    "NVIDIA H200": "H200",
    "NVIDIA H200 NVL": "H200 NVL",
    "NVIDIA RTX 6000 Ada Generation": "RTX 6000 Ada",
    "Tesla V100-PCIE-16GB": "Tesla V100",
    "Tesla V100-SXM2-16GB": "Tesla V100",
    "Tesla V100-SXM2-32GB": "Tesla V100",
}
"""Names that are the same on every cloud, by RunPod's id of the GPU, where leaving out the
manufacturer does not give them."""

_ALIASES = {
    **{normal(id_): name for id_, name in FRIENDLY.items()},
    **{normal(name): name for name in SPEEDS},
    **{normal(name): name for name in FRIENDLY.values()},
    normal("A100 SXM"): "A100 SXM4",
    normal("H200 SXM"): "H200",
    normal("V100 SXM2"): "Tesla V100",
}

CONTINENTS = frozenset({"AF", "AP", "EU", "EUR", "OC", "SA", "SEA"})
"""What a data center's id begins with where the country comes second: ``EU-RO-1``, ``US-KS-2``."""

SPOT_PRICES = """
query spotPrices {{
  gpuTypes {{ id lowestPrice(input: {{gpuCount: {count}, secureCloud: {secure}}})
    {{ minimumBidPrice stockStatus }} }}
}}
"""


@dataclass(frozen=True)
class Ask:
    """What to ask RunPod for: one kind of GPU in one cloud."""

    gpu: str
    """RunPod's id."""
    cloud: str
    data_centers: tuple[str, ...]
    """Empty: any."""
    usd_per_hour: float
    bid_usd_per_gpu: float | None = None


def friendly(name: str) -> str:
    """The name that is the same on every cloud, of RunPod's id or name of a GPU."""
    plain = name.replace("NVIDIA", "").replace("GeForce", "").split()
    return _ALIASES.get(normal(name)) or " ".join(plain)


def region(data_center: str | None) -> str:
    """The data center and its country: ``EU-RO-1, RO``."""
    if not data_center:
        return ""
    first, *rest = data_center.split("-")
    country = rest[0] if first in CONTINENTS and rest else first
    return f"{data_center}, {country}"


def with_friendly_names(want: GpuFilter) -> GpuFilter:
    """The filter, with RunPod's own names in it understood."""
    return replace(want, names=tuple(friendly(name) for name in want.names))


def market(api: RunpodApi, want: GpuFilter) -> list[Offer]:
    """What RunPod has free, of every kind, at today's prices.

    Raises:
        NoCapacityError: the group's bid is below the least for everything.
        UnreachableError: the catalog did not come, or is another than RunPod describes.
    """
    try:
        return _market(api, want)
    except (KeyError, TypeError, ValueError) as error:
        raise UnreachableError(
            f"RunPod's catalog holds what is not understood ({error!r}): try again"
        ) from error


def _market(api: RunpodApi, want: GpuFilter) -> list[Offer]:
    offers: list[Offer] = []
    bids_from: list[float] = []
    for cloud in (SECURE, COMMUNITY):
        query: dict[str, Any] = {
            "include": "AVAILABILITY",
            "product": "POD",
            "count": want.count,
            "cloud": cloud,
        }
        if want.cuda is not None:
            query["minCudaVersion"] = cuda_version(want.cuda)
        bids = _least_bids(api, cloud, want.count) if want.spot else {}
        for gpu in api.gpus(query):
            per_gpu = gpu["price"][cloud.lower()]
            if want.spot:
                least = bids.get(gpu["id"])
                if least is None:
                    continue
                per_gpu = least
                if want.bid_usd_per_hour is not None:
                    per_gpu = want.bid_usd_per_hour / want.count
                    bids_from.append(least * want.count)
                    if per_gpu < least:
                        continue
            offers += _offers(gpu, cloud, want, per_gpu)
    if not offers and bids_from:
        raise NoCapacityError(
            f"the bid of {want.bid_usd_per_hour:g} $/h is too low: RunPod's least for a spot pod "
            f"of {want.count} GPU is {min(bids_from):g} $/h now. Raise bidUsdPerHour"
        )
    return offers


def _least_bids(api: RunpodApi, cloud: str, count: int) -> dict[str, float]:
    """USD per hour and GPU, by GPU id."""
    text = SPOT_PRICES.format(count=int(count), secure=str(cloud == SECURE).lower())
    return {
        gpu["id"]: float(gpu["lowestPrice"]["minimumBidPrice"])
        for gpu in api.graphql(text, {})["gpuTypes"]
        if (gpu.get("lowestPrice") or {}).get("minimumBidPrice")
    }


def _offers(gpu: dict[str, Any], cloud: str, want: GpuFilter, per_gpu: float) -> list[Offer]:
    """One for each data center that has such GPUs free."""
    most = gpu["maxCount"][cloud.lower()]
    if not gpu[cloud.lower()] or not per_gpu or most < want.count:
        return []
    if gpu.get("availability") == "NONE":
        return []
    places = [one["id"] for one in gpu.get("dataCenters") or () if one["availability"] != "NONE"]
    return [
        Offer(
            id=f"{cloud}/{gpu['id']}/{place}",
            gpu=friendly(gpu["id"]),
            usd_per_hour=per_gpu * want.count + disk_gb(want) * DISK_USD_PER_GB_HOUR,
            region=region(place),
            gpu_count=want.count,
            vram_gb=float(gpu["memory"]),
            verified=cloud == SECURE,
            # v2 cannot ask for a public address, which not every community host has.
            direct_port=cloud == SECURE,
            spot=want.spot,
        )
        for place in places or ("",)
    ]


def asks(offers: Iterable[Offer], want: GpuFilter) -> list[Ask]:
    """What to ask for, in the order of the offers; the data centers of a kind in one question.

    Data centers are named only if the group is particular about them: RunPod knows best which has
    a machine this very moment.
    """
    particular = bool(want.regions or want.not_regions)
    kinds: dict[tuple[str, str], list[Offer]] = {}
    for offer in offers:
        cloud, gpu, _ = offer.id.split("/", 2)
        kinds.setdefault((gpu, cloud), []).append(offer)
    found: list[Ask] = []
    for (gpu, cloud), same in kinds.items():
        places = tuple(offer.id.split("/", 2)[2] for offer in same) if particular else ()
        price = max(offer.usd_per_hour for offer in same)
        ask = Ask(gpu, cloud, tuple(filter(None, places)), price)
        if not want.spot:
            found.append(ask)
            continue
        bid = (price - disk_gb(want) * DISK_USD_PER_GB_HOUR) / want.count
        spot = replace(ask, bid_usd_per_gpu=round(bid, 6))
        # A spot pod can be asked for in one data center at a time.
        found += [replace(spot, data_centers=(place,)) for place in ask.data_centers] or [spot]
    return found


def disk_gb(want: GpuFilter) -> int:
    """Of the pod's container, in GB."""
    return round(want.disk_gb) if want.disk_gb else DISK_GB


def cuda_version(cuda: float) -> str:
    """``12.4``; ``13.0`` for 13."""
    return f"{cuda:.1f}"
