"""The fleet of a stack: `pulumi up` rents and starts what `Pulumi.{stack}.yaml` declares."""

import asyncio

import pulumi
from stemfleet.fleet import Fleet, read_config


async def declare() -> pulumi.Inputs:
    """The fleet; what the stack puts out."""
    fleet = Fleet("fleet", read_config())
    # Let the registrations begin: once it has any to wait for, the SDK does not look at all the
    # outputs there are whenever one of them comes, which takes seconds with a thousand slots.
    await asyncio.sleep(0)
    return {
        "endpoints": fleet.endpoints,
        "token": fleet.token,
        "ca": fleet.ca,
        "usdPerHour": fleet.usd_per_hour,
        "maxUsdPerHour": fleet.max_usd_per_hour,
    }


pulumi.run(declare)
