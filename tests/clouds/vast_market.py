"""The emulated Vast.ai's market: offers, and the filters that its API takes for them."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Mapping
from typing import Any

Row = dict[str, Any]

KINDS = {
    "RTX 3060": (12_288, 0.09),
    "RTX 3090": (24_576, 0.20),
    "RTX 4090": (24_564, 0.38),
    "RTX 5090": (32_607, 0.62),
    "A100 SXM4": (81_920, 1.05),
    "H100 SXM": (81_559, 2.10),
}
"""MB as such a card reports them, and USD per hour about which it is offered."""

PLACES = ("Sweden, SE", "Germany, DE", "Czechia, CZ", "Texas, US", "Quebec, CA", "Tokyo, JP")

ORDERS: dict[str, Callable[[float, float], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


class BadQueryError(Exception):
    """The API would not take this query."""


def make_offer(id_: int, kind: str = "RTX 4090", **values: object) -> Row:
    """One offer as the market shows it; any field may be given."""
    memory, price = KINDS[kind]
    gpus = int(str(values.get("num_gpus", 1)))
    row = {
        "id": id_,
        "ask_contract_id": id_,
        "machine_id": 50_000 + id_,
        "host_id": 90_000 + id_,
        "gpu_name": kind,
        "num_gpus": gpus,
        "gpu_ram": memory,
        "gpu_total_ram": memory * gpus,
        "cpu_ram": 64_000,
        "disk_space": 400.0,
        "disk_bw": 2000.0,
        "inet_up": 400.0,
        "inet_down": 800.0,
        "dph_base": price * gpus,
        "min_bid": round(price * gpus * 0.4, 4),
        "storage_cost": 0.15,
        "reliability": 0.995,
        "reliability2": 0.995,
        "verification": "verified",
        "verified": True,
        "external": False,
        "rentable": True,
        "rented": False,
        "geolocation": "Sweden, SE",
        "direct_port_count": 100,
        "cuda_max_good": 12.8,
        "compute_cap": 890,
        "driver_version": "570.86.15",
        "hosting_type": 1,
        "static_ip": True,
        "duration": 2_500_000.0,
        "dlperf": 80.0,
        "score": 500.0,
    }
    return row | values


def make_market(count: int, seed: int = 1) -> list[Row]:
    """A market of so many machines, the same for the same seed; some of them unfit for anything."""
    chance = random.Random(seed)
    offers = []
    for id_ in range(1001, 1001 + count):
        kind = chance.choice(list(KINDS))
        price = KINDS[kind][1] * chance.uniform(0.8, 1.4)
        good = chance.random() < 0.8
        offers.append(
            make_offer(
                id_,
                kind,
                dph_base=round(price, 4),
                min_bid=round(price * 0.4, 4),
                geolocation=chance.choice(PLACES),
                reliability2=0.995 if good else 0.9,
                direct_port_count=100 if good or chance.random() < 0.5 else 0,
                inet_down=round(chance.uniform(50, 2000), 1),
            )
        )
    return offers


def priced(offer: Row, disk_gb: float) -> Row:
    """An offer with what it costs per hour, so many GB of disk included."""
    storage = offer["storage_cost"] * disk_gb / 730
    return offer | {"dph_total": round(offer["dph_base"] + storage, 6)}


def search(offers: list[Row], query: Mapping[str, Any]) -> list[Row]:
    """What the API answers to a query.

    Raises:
        BadQueryError: an unknown field or operator.
    """
    query = dict(query)
    order = query.pop("order", [["score", "desc"]])
    kind = query.pop("type", "on-demand")
    limit = int(query.pop("limit", 64))
    disk = float(query.pop("allocated_storage", 5.0))
    query.pop("disable_bundling", None)
    if kind not in ("on-demand", "bid", "reserved"):
        raise BadQueryError(f"invalid type {kind!r}")
    rows = [priced(offer, disk) for offer in offers]
    if kind == "bid":
        rows = [row | {"dph_total": row["min_bid"], "is_bid": True} for row in rows]
    rows = [row for row in rows if matches(row, query) and row["disk_space"] >= disk]
    for column, direction in reversed(order):
        rows.sort(key=lambda row: row[column], reverse=direction == "desc")
    return rows[:limit]


def matches(row: Row, filters: Mapping[str, Any]) -> bool:
    """Whether a row meets every ``{field: {operator: value}}``.

    Raises:
        BadQueryError: an unknown field or operator.
    """
    for name, conditions in filters.items():
        if name not in row:
            raise BadQueryError(f"unknown field {name!r}")
        if not isinstance(conditions, Mapping):
            raise BadQueryError(f"{name}: expected {{operator: value}}")
        if not all(_met(row[name], how, given) for how, given in conditions.items()):
            return False
    return True


def _met(value: object, how: str, given: Any) -> bool:  # noqa: ANN401 - any JSON
    if how in ORDERS:
        try:
            return ORDERS[how](float(value), float(given))  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return False
    if how in ("eq", "neq"):
        return _same(value, given) == (how == "eq")
    if how in ("in", "notin"):
        return any(_same(value, one) for one in given) == (how == "in")
    raise BadQueryError(f"unknown operator {how!r}")


def _same(value: object, given: object) -> bool:
    if isinstance(value, bool) or isinstance(given, bool):
        return str(value).lower() == str(given).lower()
    if isinstance(value, str) and isinstance(given, str):
        # A country stands for every place in it.
        return value == given or (len(given) == 2 and value.endswith(f", {given}"))
    try:
        return float(value) == float(given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return value == given
