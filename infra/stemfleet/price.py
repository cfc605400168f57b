"""What the fleet may cost at most: known from the configuration alone, before a machine is rented.

Every group caps the price of its machines, and no adapter rents above the cap. So the worst case is
a product, and live prices are no part of what is declared.
"""

from __future__ import annotations

import threading
from contextlib import suppress

from stemfleet.clouds.base import CloudError
from stemfleet.clouds.registry import find_cloud
from stemfleet.config import FleetConfig

BALANCE_HOURS = 2.0
"""An account that pays its part of the fleet for less than this is told of before the renting."""

BALANCE_SECONDS = 15.0
"""How long an account may be asked: who rents next will hear what is wrong with it."""


def at_most(config: FleetConfig) -> dict[str, object]:
    """USD per hour in the worst case, as the stack's output that a preview compares."""
    groups = {group.name: round(group.usd_per_hour, 4) for group in config.groups}
    return {"total": round(sum(groups.values()), 4), "groups": groups}


def table(config: FleetConfig) -> str:
    """The groups and what each costs at most, for people."""
    rows = [("group", "cloud", "workers", "$/h each", "$/h")]
    rows += [
        (
            group.name,
            group.cloud,
            str(group.count),
            f"{group.gpu.maxUsdPerHour if group.gpu else 0:.2f}",
            f"{group.usd_per_hour:.2f}",
        )
        for group in config.groups
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    total = sum(group.usd_per_hour for group in config.groups)
    first = f"The fleet costs at most {total:.2f} $/h (the limit: {config.maxUsdPerHour:.2f} $/h)"
    return "\n".join([first, *lines])


def low_balances(config: FleetConfig) -> list[str]:
    """For each account that cannot pay its part of the fleet for long: a warning.

    Asks the accounts. One that gives no answer is passed over.
    """
    parts: dict[str, float] = {}
    for group in config.groups:
        parts[group.cloud] = parts.get(group.cloud, 0.0) + group.usd_per_hour
    warnings = []
    for cloud, usd_per_hour in parts.items():
        balance = _balance(cloud) if usd_per_hour else None
        if balance is not None and balance < BALANCE_HOURS * usd_per_hour:
            warnings.append(
                f"{cloud}: the account holds {balance:.2f} $, which pays its part of the fleet "
                f"(at most {usd_per_hour:.2f} $/h) for {max(0.0, balance) / usd_per_hour:.1f} h: "
                "top it up, or machines are stopped in the middle of their work"
            )
    return warnings


def _balance(cloud: str) -> float | None:
    answers: list[float | None] = []

    def ask() -> None:
        with suppress(CloudError):
            answers.append(find_cloud(cloud).balance())

    # Its own retries may take longer than an `up` that has nothing to rent should wait.
    asking = threading.Thread(target=ask, name=f"balance of {cloud}", daemon=True)
    asking.start()
    asking.join(BALANCE_SECONDS)
    return answers[0] if answers else None
