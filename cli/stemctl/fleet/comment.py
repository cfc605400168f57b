"""A preview of a fleet as reviewers read it: Markdown for a comment on a pull request."""

from __future__ import annotations

from collections.abc import Iterator

from stemfleet.clouds.registry import CLOUDS, LOCAL

from stemctl.fleet.preview import GroupChange, Preview

SHOWN_SLOTS = 8
"""Of one reason; the rest is counted."""


def marker(stack: str) -> str:
    """By what the comment is found again, to be written anew: it is not shown."""
    return f"<!-- stemfleet preview of {stack} -->"


def comment(preview: Preview) -> str:
    """The whole comment; it ends with a newline."""
    return "\n".join([marker(preview.stack), *_lines(preview), ""])


def _lines(preview: Preview) -> Iterator[str]:
    name = f"Fleet `{preview.stack}`" if preview.stack else "Fleet"
    if preview.errors:
        yield f"### {name}: the preview failed, nothing would be changed"
        yield ""
        yield "```"
        yield from (line.replace("```", "'''") for line in preview.errors)
        yield "```"
        return
    changing = [group for group in preview.groups if group.changes]
    if not changing:
        yield f"### {name}: no change"
        yield ""
        yield f"It has {_workers(preview)}, at most {_of_cap(preview)}."
        return
    yield f"### {name}: {'; '.join(_headline(group) for group in changing)}"
    yield ""
    yield f"At most {_of_cap(preview)}."
    yield ""
    yield "| group | change | workers | at most $/h | × realtime |"
    yield "|---|---|---|---|---|"
    for group in preview.groups:
        cells = (
            _code(group.name),
            _what(group),
            _arrow(str(group.before), str(group.after)),
            _arrow(f"{group.usd_before:.2f}", f"{group.usd_after:.2f}"),
            _capacity(group),
        )
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
    yield from _replacements(preview)


def _workers(preview: Preview) -> str:
    count = sum(group.after for group in preview.groups)
    return "1 worker" if count == 1 else f"{count} workers"


def _of_cap(preview: Preview) -> str:
    now, then = f"${preview.usd_before:.2f}/h", f"${preview.usd_after:.2f}/h"
    cap = "" if preview.cap is None else f" of a cap of ${preview.cap:.2f}/h"
    return _arrow(now, then) + cap


def _headline(group: GroupChange) -> str:
    parts = []
    if grown := group.after - group.before:
        change = round(group.usd_after - group.usd_before, 2)
        price = f", at most {_sign(change)}${abs(change):.2f}/h" if change else ""
        parts.append(f"{_sign(grown)}{abs(grown)} × {_machines(group)}{price}")
    if group.replaced:
        parts.append(f"{len(group.replaced)} × {_machines(group)} replaced")
    if group.adapted and not parts:
        parts.append(f"`{group.name}` adapted")
    return ", ".join(parts)


def _sign(change: float) -> str:
    return "+" if change > 0 else "−"


def _machines(group: GroupChange) -> str:
    cloud = CLOUDS[group.cloud].title if group.cloud in CLOUDS else group.cloud
    return f"{group.machine} on {cloud}" if group.cloud != LOCAL else f"worker on {cloud}"


def _what(group: GroupChange) -> str:
    if not group.changes:
        return "none"
    parts = []
    if grown := group.after - group.before:
        parts.append(f"**{_sign(grown)}{abs(grown)}** × {_machines(group)}")
    if group.replaced:
        parts.append(f"**{len(group.replaced)} replaced**")
    if group.adapted:
        parts.append(f"{group.adapted} keep their machine; the change holds for the next one")
    return ", ".join(parts)


def _arrow(old: str, new: str) -> str:
    return new if old == new else f"{old} → {new}"


def _capacity(group: GroupChange) -> str:
    """What its workers separate together, as far as those that stay were measured."""
    if group.realtime is None:
        return "not measured"
    then = "not measured" if group.replaced else f"{group.after * group.realtime:.0f}"
    return _arrow(f"{group.before * group.realtime:.0f}", then)


def _replacements(preview: Preview) -> Iterator[str]:
    by_reason: dict[tuple[str, ...], list[str]] = {}
    for group in preview.groups:
        for one in group.replaced:
            by_reason.setdefault(one.reasons, []).append(one.slot)
    if by_reason:
        yield ""
        yield "Replaced, the old machine first:"
        yield ""
    for reasons, slots in by_reason.items():
        shown = ", ".join(_code(slot) for slot in slots[:SHOWN_SLOTS])
        more = f" and {len(slots) - SHOWN_SLOTS} more" if len(slots) > SHOWN_SLOTS else ""
        yield f"- {shown}{more}: {'; '.join(reasons) or 'another machine is asked for'}"


def _code(text: str) -> str:
    return f"`{text.replace('`', '')}`"
