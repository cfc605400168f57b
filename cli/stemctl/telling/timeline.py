"""A run as one page: what it did, what it cost, and when each worker did what, drawn."""

from __future__ import annotations

import time
from collections.abc import Iterator
from html import escape

from stemctl.dispatch.crew import STAGES
from stemctl.telling.history import Row, Run

WIDTH = 1000
ROW = 22
LEFT = 150
BAR = {"reading": 3, "uploading": 3, "waiting": 3, "computing": 12, "downloading": 3}
"""Height of a stage's bar; what a worker computes stands out."""
TOP = {"reading": 17, "uploading": 17, "waiting": 17, "computing": 4, "downloading": 0}

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1e; --dim: #6b6b70; --line: #d9d9de; --ground: #fff;
  --computing: #3f7cac; --uploading: #d9a441; --downloading: #5a9367; --waiting: #c9c9cf;
  --bad: #c0392b; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf0; --dim: #9a9aa2; --line: #3a3a40;
  --ground: #17171a; --waiting: #55555c; --bad: #e5695c; } }
body { font: 14px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--ground);
  max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--dim); font-weight: normal; } td.n, th.n { text-align: right; }
code { overflow-wrap: anywhere; } .bad { color: var(--bad); } .dim { color: var(--dim); }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 11px; }
svg .dim { fill: var(--dim); } svg line { stroke: var(--line); }
.computing { fill: var(--computing); } .uploading, .reading { fill: var(--uploading); }
.downloading { fill: var(--downloading); } .waiting { fill: var(--waiting); }
rect.bad { fill: var(--bad); }
.key i { display: inline-block; width: .8em; height: .8em; margin: 0 .3em 0 1em; }
"""


def page(run: Run) -> str:
    """The whole page, which needs nothing from elsewhere."""
    about, totals = run.about, run.totals
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(about["began"]))
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content='width=device-width'>",
        f"<title>Run {about['run']}</title><style>{STYLE}</style>",
        f"<h1>Run {about['run']}, {began}, {escape(about['state'])}</h1>",
        f"<p><code>{escape(about['command'])}</code></p>",
        f"<p class=bad>{escape(about['error'])}</p>" if about["error"] else "",
        _table(["", ""], [[name, value] for name, value in summary(totals)]),
        "<h2>Workers</h2>",
        f"<p class='key dim'>{''.join(_key())}</p>",
        *_timeline(run),
        _table(*_workers(run)),
    ]
    if failed := [track for track in run.tracks if track["state"] == "failed"]:
        rows = [[track["name"], track["tries"], track["error"]] for track in failed]
        parts += ["<h2>Failures</h2>", _table(["track", "tries", "reason"], rows)]
    parts += ["<h2>Tracks</h2>", _table(TRACKS, [track_row(track) for track in run.tracks])]
    return "\n".join(parts) + "\n"


TRACKS = ["track", "", "worker", "length s", "seconds", "× realtime", "$", "tries"]


def track_row(track: Row) -> list[object]:
    """A track as a row of `TRACKS`."""
    names = ["name", "state", "worker", "length", "seconds", "realtime", "usd", "tries"]
    return [track[name] for name in names]


def summary(totals: Row) -> Iterator[tuple[str, str]]:
    """What a run comes to, in words."""
    ends = {"done": "done", "there": "done before", "failed": "failed", "left": "left"}
    counts = [f"{totals[end]} {word}" for end, word in ends.items() if totals[end]]
    counts += [f"{totals['waiting']} waiting"] if totals["waiting"] else []
    yield "tracks", f"{', '.join(counts) or 'none'}, of {totals['tracks']}"
    yield "time", _duration(totals["seconds"]) + _of(totals, "seconds", _duration)
    if totals["realtime"]:
        sound = _duration(totals["sound_seconds"])
        yield "sound", f"{sound}, {totals['realtime']:.1f} × realtime by all workers"
    yield "cost", f"{totals['usd']:.4f} $ of work" + _of(totals, "usd", lambda usd: f"{usd:.4f} $")
    yield "", f"{totals['usd_rented']:.4f} $ for the time that the workers were there"
    if totals["retries"]:
        yield "retries", str(totals["retries"])
    yield "sent, got", f"{totals['sent'] / 1e6:.1f} MB, {totals['got'] / 1e6:.1f} MB"


def _of(totals: Row, name: str, told: object) -> str:
    estimate = totals[f"estimate_{name}"]
    if estimate is None or not callable(told):
        return ""
    more = 100 * (totals[name] / estimate - 1) if estimate else 0.0
    return f"; {told(estimate)} were estimated ({more:+.0f} %)"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def _key() -> Iterator[str]:
    for stage in ("uploading", "waiting", "computing", "downloading"):
        yield f"<i style='background: var(--{stage})'></i>{stage}"
    yield "<i style='background: var(--bad)'></i>failed"


def _timeline(run: Run) -> Iterator[str]:
    """The workers, one a row, and in it their trips."""
    began = run.about["began"]
    span = max(run.totals["seconds"], 0.001)
    slots = list(
        dict.fromkeys([worker["slot"] for worker in run.workers] + [t["slot"] for t in run.trips])
    )
    rows = {slot: number for number, slot in enumerate(slots)}
    height = ROW * len(slots) + 20
    yield f"<svg viewBox='0 0 {WIDTH} {height}' role=img aria-label='when each worker did what'>"
    scale = (WIDTH - LEFT) / span
    for number in range(5):
        x = LEFT + (WIDTH - LEFT) * number / 4
        anchor = "end" if number == 4 else "middle" if number else "start"
        yield f"<line x1={x:.1f} x2={x:.1f} y1=0 y2={height - 16} />"
        at = _duration(span * number / 4)
        yield f"<text class=dim x={x:.1f} y={height - 3} text-anchor={anchor}>{at}</text>"
    for slot, number in rows.items():
        shown = slot if len(slot) <= 22 else f"…{slot[-21:]}"
        yield f"<text x=0 y={ROW * number + 15}>{escape(shown)}</text>"
    for trip in run.trips:
        y = ROW * rows[trip["slot"]]
        for stage, start, end in _stages(trip, began + span):
            x, wide = LEFT + (start - began) * scale, max((end - start) * scale, 0.5)
            bad = " bad" if trip["error"] and stage == "computing" else ""
            yield (
                f"<rect class='{stage}{bad}' x={x:.1f} y={y + TOP[stage]} width={wide:.1f} "
                f"height={BAR[stage]}><title>{escape(_told(trip, stage, end - start))}</title>"
                "</rect>"
            )
    yield "</svg>"


def _told(trip: Row, stage: str, seconds: float) -> str:
    error = f": {trip['error']}" if trip["error"] else ""
    return f"{trip['place']}, {stage}, {seconds:.1f} s{error}"


def _stages(trip: Row, until: float) -> Iterator[tuple[str, float, float]]:
    """Each stage that the trip has reached, with when it began and ended."""
    known = [(stage, trip[stage]) for stage in STAGES if trip[stage] is not None]
    ends = [start for _, start in known[1:]] + [trip["ended"] or until]
    for (stage, start), end in zip(known, ends, strict=True):
        yield stage, start, max(end, start)


def _workers(run: Run) -> tuple[list[str], list[list[object]]]:
    columns = ["worker", "gpu", "cloud", "$/h", "parts", "seconds", "$", ""]
    rows: list[list[object]] = []
    for worker in run.workers:
        trips = [trip for trip in run.trips if trip["slot"] == worker["slot"]]
        rows.append(
            [
                *(worker[name] for name in ("slot", "gpu", "cloud", "usd_per_hour")),
                sum(bool(trip["bore"]) for trip in trips),
                sum(trip["seconds"] or 0.0 for trip in trips),
                sum(trip["usd"] or 0.0 for trip in trips),
                worker["aside"] and f"set aside: {worker['aside']}",
            ]
        )
    return columns, rows


def _table(columns: list[str], rows: list[list[object]]) -> str:
    numbers = [any(isinstance(row[i], int | float) for row in rows) for i in range(len(columns))]
    classes = [" class=n" if number else "" for number in numbers]
    head = "".join(f"<th{c}>{escape(n)}</th>" for c, n in zip(classes, columns, strict=True))
    lines = [f"<tr>{head}</tr>"] if any(columns) else []
    for row in rows:
        cells = (f"<td{c}>{escape(_cell(v))}</td>" for c, v in zip(classes, row, strict=True))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
