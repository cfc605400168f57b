"""The fleet of a stack: `pulumi up` rents and starts what `Pulumi.{stack}.yaml` declares."""

import pulumi
from stemfleet.fleet import Fleet, read_config

fleet = Fleet("fleet", read_config())

pulumi.export("endpoints", fleet.endpoints)
pulumi.export("token", fleet.token)
pulumi.export("ca", fleet.ca)
pulumi.export("usdPerHour", fleet.usd_per_hour)
pulumi.export("maxUsdPerHour", fleet.max_usd_per_hour)
