"""The page: one file that needs no other, so that it can be sent to somebody."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from string import Template

from stemserve.comparison.compare import Card, Comparison, Result
from stemserve.comparison.measures import Level

_PAGE = Path(__file__).with_name("page.html")


def render(comparison: Comparison) -> str:
    """The page as HTML; nothing in it refers to anything outside of it."""
    stems = dict.fromkeys(stem for result in comparison.results for stem in result.stems)
    sections = [_section("mix", [("as it came", comparison.mix)])]
    for stem in stems:
        cards = [
            (result.preset.name, result.stems[stem])
            for result in comparison.results
            if stem in result.stems
        ]
        sections.append(_section(stem, cards))
    end = comparison.start + comparison.seconds
    return Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(comparison.name),
        subtitle=escape(
            f"{_clock(comparison.start)} to {_clock(end)}, {comparison.seconds:.1f} s at "
            f"{comparison.rate} Hz, on {comparison.device}"
        ),
        rows="\n".join(_row(result, comparison) for result in comparison.results),
        sections="\n".join(sections),
    )


def _row(result: Result, comparison: Comparison) -> str:
    name = f'<th title="{escape(result.preset.description)}">{escape(result.preset.name)}</th>'
    if result.error is not None:
        return f'<tr>{name}<td class="said error" colspan="5">{escape(result.error)}</td></tr>'
    numbers = (
        f"{result.seconds:.2f}",
        f"{comparison.seconds / max(result.seconds, 1e-6):.2f}",
        f"{result.loading_seconds:.2f} s",
        _below(result.residual, comparison.mix.level),
    )
    cells = "".join(f'<td class="number">{escape(number)}</td>' for number in numbers)
    return f'<tr>{name}{cells}<td class="said">{escape(_terms(result))}</td></tr>'


def _terms(result: Result) -> str:
    licences = result.preset.licences or []
    if not licences:
        return "none needed"
    return ", ".join(dict.fromkeys(licence.name for licence in licences))


def _section(title: str, cards: list[tuple[str, Card]]) -> str:
    figures = "\n".join(_figure(title, caption, card) for caption, card in cards)
    return f'<h2>{escape(title)}</h2>\n<div class="row">\n{figures}\n</div>'


def _figure(title: str, caption: str, card: Card) -> str:
    levels = f"RMS {card.level.rms_db:.1f} dB · peak {card.level.peak_db:.1f} dB"
    picture = _data_url("image/png", card.image)
    sound = _data_url("audio/mpeg", card.audio)
    label = escape(f"{title}, {caption}")
    return (
        f"<figure><figcaption><b>{escape(caption)}</b><small>{levels}</small></figcaption>"
        f'<div class="picture"><img alt="Spectrogram: {label}" src="{picture}"><i></i></div>'
        f'<audio controls preload="metadata" aria-label="{label}" src="{sound}"></audio></figure>'
    )


def _below(residual: Level | None, mix: Level) -> str:
    if residual is None:
        return ""
    return f"{residual.rms_db - mix.rms_db:.0f} dB"


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{int(minutes)}:{rest:04.1f}"
