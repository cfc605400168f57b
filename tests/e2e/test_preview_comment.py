"""What reviewers are told of a change: the engine's own previews, as `stemctl` puts them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clouds.clock import Clock
from tests.clouds.machines import RealWorker
from tests.clouds.vast import VastEmulator
from tests.e2e.conftest import SECONDS, Project

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

GPU: dict[str, Any] = {
    "name": "gpu",
    "cloud": "vast",
    "count": 2,
    "image": "ghcr.io/example/worker:1",
    "gpu": {"names": ["RTX 4090", "RTX 3090"], "vramGb": 24, "maxUsdPerHour": 0.8},
}
HERE: dict[str, Any] = {"name": "here", "cloud": "local", "count": 1}

FIRST = """\
<!-- stemfleet preview of dev -->
### Fleet `dev`: +2 × RTX 4090 or RTX 3090 on Vast.ai, at most +$1.60/h; +1 × worker on this machine

At most $0.00/h → $1.60/h of a cap of $5.00/h.

| group | change | workers | at most $/h | × realtime |
|---|---|---|---|---|
| `gpu` | **+2** × RTX 4090 or RTX 3090 on Vast.ai | 0 → 2 | 0.00 → 1.60 | not measured |
| `here` | **+1** × worker on this machine | 0 → 1 | 0.00 | not measured |
"""

SAME = """\
<!-- stemfleet preview of dev -->
### Fleet `dev`: no change

It has 3 workers, at most $1.60/h of a cap of $5.00/h.
"""

MORE = """\
<!-- stemfleet preview of dev -->
### Fleet `dev`: +2 × RTX 4090 or RTX 3090 on Vast.ai, at most +$1.60/h

At most $1.60/h → $3.20/h of a cap of $5.00/h.

| group | change | workers | at most $/h | × realtime |
|---|---|---|---|---|
| `gpu` | **+2** × RTX 4090 or RTX 3090 on Vast.ai | 2 → 4 | 1.60 → 3.20 | N → N |
| `here` | none | 1 | 0.00 | N |
"""

FEWER = """\
<!-- stemfleet preview of dev -->
### Fleet `dev`: −1 × RTX 4090 or RTX 3090 on Vast.ai, at most −$0.80/h; −1 × worker on this machine

At most $1.60/h → $0.80/h of a cap of $5.00/h.

| group | change | workers | at most $/h | × realtime |
|---|---|---|---|---|
| `gpu` | **−1** × RTX 4090 or RTX 3090 on Vast.ai | 2 → 1 | 1.60 → 0.80 | N → N |
| `here` | **−1** × worker on this machine | 1 → 0 | 0.00 | N → 0 |
"""

OTHER_FILTER = """\
<!-- stemfleet preview of dev -->
### Fleet `dev`: 2 × RTX 5090 on Vast.ai replaced

At most $1.60/h of a cap of $5.00/h.

| group | change | workers | at most $/h | × realtime |
|---|---|---|---|---|
| `gpu` | **2 replaced** | 2 | 1.60 | N → not measured |
| `here` | none | 1 | 0.00 | N |

Replaced, the old machine first:

- `gpu-0`, `gpu-1`: names RTX 4090, RTX 3090 → RTX 5090; vramGb 24 → 32
"""

OTHER_IMAGE = """\
<!-- stemfleet preview of dev -->
### Fleet `dev`: 2 × RTX 4090 or RTX 3090 on Vast.ai replaced

At most $1.60/h of a cap of $5.00/h.

| group | change | workers | at most $/h | × realtime |
|---|---|---|---|---|
| `gpu` | **2 replaced** | 2 | 1.60 | N → not measured |
| `here` | none | 1 | 0.00 | N |

Replaced, the old machine first:

- `gpu-0`, `gpu-1`: image ghcr.io/example/worker:1 → ghcr.io/example/worker:2
"""

LOWER_CAP = """\
<!-- stemfleet preview of dev -->
### Fleet `dev`: `gpu` adapted

At most $1.60/h → $1.56/h of a cap of $5.00/h.

| group | change | workers | at most $/h | × realtime |
|---|---|---|---|---|
| `gpu` | 2 keep their machine; the change holds for the next one | 2 | 1.60 → 1.56 | N |
| `here` | none | 1 | 0.00 | N |
"""

ABOVE_THE_CAP = """\
<!-- stemfleet preview of dev -->
### Fleet `dev`: the preview failed, nothing would be changed

```
the stack's configuration cannot be used:
stemfleet:maxUsdPerHour: the fleet may cost up to 8 $/h (gpu: 10 × 0.8), above the stack's limit \
of 5 $/h: lower a count or a cap, or raise the limit with `pulumi config set maxUsdPerHour 8`
Mend it in Pulumi.dev.yaml; nothing was changed.
```
"""


@pytest.fixture
def market(project: Project) -> Iterator[VastEmulator]:
    """The cloud that the project's engine finds, thirty times as fast as the real one."""
    with VastEmulator(clock=Clock(30.0), start=RealWorker) as cloud:
        project.environment.update(cloud.environment())
        yield cloud


def preview(project: Project, *groups: dict[str, Any], as_json: bool = False) -> tuple[int, str]:
    """Preview a fleet of these groups without any key; the comment, and its exit code."""
    project.declare(*groups)
    environment = {k: v for k, v in project.environment.items() if not k.startswith("VAST")}
    told = subprocess.run(
        [*project.command, "preview", "--json"],
        cwd=project.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    command = [sys.executable, "-m", "stemctl", "preview-comment", "-"]
    done = subprocess.run(
        [*command, "--json"] if as_json else command,
        input=told.stdout,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert not done.stderr
    return done.returncode, done.stdout


def plain(comment: str) -> str:
    """The comment with an N for each speed, which no two runs measure alike."""
    return "\n".join(_plain_row(line) for line in comment.split("\n"))


def _plain_row(line: str) -> str:
    if not line.startswith("| `"):
        return line
    head, _, speed = line.removesuffix(" |").rpartition(" | ")
    return f"{head} | {re.sub('[1-9][0-9]*', 'N', speed)} |"


def test_the_comment_on_each_kind_of_change(project: Project, market: VastEmulator) -> None:
    assert preview(project, GPU, HERE) == (0, FIRST)
    assert market.ledger.calls() == [], "a preview asks nothing"
    project.up()

    def comment(*groups: dict[str, Any]) -> str:
        code, text = preview(project, *groups)
        assert code == 0
        return plain(text)

    assert comment(GPU, HERE) == SAME
    assert comment({**GPU, "count": 4}, HERE) == MORE
    assert comment({**GPU, "count": 1}) == FEWER
    other = {**GPU["gpu"], "names": ["RTX 5090"], "vramGb": 32}
    assert comment({**GPU, "gpu": other}, HERE) == OTHER_FILTER
    assert comment({**GPU, "image": "ghcr.io/example/worker:2"}, HERE) == OTHER_IMAGE
    assert comment({**GPU, "gpu": {**GPU["gpu"], "maxUsdPerHour": 0.78}}, HERE) == LOWER_CAP
    assert preview(project, {**GPU, "count": 10}, HERE) == (3, ABOVE_THE_CAP)

    code, text = preview(project, {**GPU, "count": 4}, HERE, as_json=True)
    told = json.loads(text)
    assert (code, told["usd_before"], told["usd_after"]) == (0, 1.6, 3.2)
    assert plain(told["comment"]) == MORE
    project.destroy()
    assert market.ledger.alive("stemfleet.dev.") == []
