"""A separation process for fault tests: it keeps the protocol, and misbehaves as it is told.

The input's text is the order; the "stems" are copies of it. Orders:

``copy`` · ``hold``: wait for a file ``go`` beside the results · ``die N``: end by SIGKILL in
mid-job, N times · ``hang``: say nothing more · ``fail TYPE`` · ``garbage``: say much that is no
event · ``flood``: a line without an end.

It imports nothing of the worker, so that it starts at once and checks the wire, not the code.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

STEMS = ["vocals", "instrumental", "drums"]


def say(kind: str, **fields: object) -> None:
    """Send one event."""
    print(json.dumps({"kind": kind, **fields}), flush=True)


def advance(percent: float) -> None:
    """Tell how far the task is."""
    say(
        "advanced",
        tasks={"models": "done", "cutting": "done", "inference": "running"},
        details={"completed_segments": 0, "total_segments": 2, "percent": percent},
        duration_seconds=12.5,
    )


def obey(order: str, folder: Path) -> bool:
    """Do what the order says in mid-job; False if the job's last event has been sent."""
    word, _, rest = order.strip().partition(" ")
    if word == "die":
        deaths = folder / "deaths"
        count = len(deaths.read_bytes()) if deaths.exists() else 0
        if count < int(rest):
            deaths.write_bytes(b"x" * (count + 1))
            os.kill(os.getpid(), signal.SIGKILL)
    elif word == "hold":
        while not (folder / "go").exists():
            time.sleep(0.01)
    elif word == "hang":
        threading.Event().wait()
    elif word == "fail":
        say("failed", error="It was told to fail.", error_type=rest)
        return False
    elif word == "garbage":
        sys.stdout.buffer.write(
            b'Loading weights...\n{"kind": "surprise"}\n\xff\xfe\n{}\n[1, 2\n\n'
        )
        sys.stdout.flush()
        print("a warning of some library", file=sys.stderr, flush=True)
    elif word == "flood":
        while True:
            sys.stdout.write("x" * 2**16)
    return True


def separate(task: dict[str, Any]) -> None:
    """Run one task."""
    order = Path(task["input_path"]).read_bytes()
    folder = Path(task["output_dir"])
    say("logged", line=f"task {json.dumps(task)}")
    advance(50)
    if not obey(order.decode(errors="replace"), folder):
        return
    names = {f"{stem}.{task['format']}": stem for stem in task["stems"]}
    if task["template_mp3"]:
        names["instrumental.mp3"] = "instrumental"
    digest = hashlib.sha256(order).hexdigest()
    results = []
    for name, stem in names.items():
        (folder / name).write_bytes(order)
        results.append({"name": name, "stem": stem, "size": len(order), "sha256": digest})
    say("finished", results=results, duration_seconds=12.5)


def main() -> None:
    """Separate until standard input ends."""
    tasks: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            tasks.put(line)
        os._exit(0)

    presets = [
        {"name": "center", "description": "", "stems": STEMS, "available": True},
        {"name": "other", "description": "", "stems": ["drums"], "available": True},
        {
            "name": "htdemucs",
            "description": "",
            "stems": STEMS,
            "available": False,
            "lacks": "needs torch: pip install 'stemfleet[image]'",
        },
    ]
    say("started", device="stand-in", presets=presets)
    threading.Thread(target=read, daemon=True).start()
    while True:
        separate(json.loads(tasks.get()))


if __name__ == "__main__":
    main()
