"""A picture of measurements: bars for each build, a group for each test, as SVG text. Readable on light and on dark pages."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from llamamgr.core.bench_records import Record

_WIDTH, _LEFT, _RIGHT = 760, 210, 130
_BAR, _GAP, _HEADING = 18, 6, 34
_LETTER = 8  # a letter of 13 px is about as wide at most
_COLOURS = ("#3b7dd8", "#e08a2c", "#3f9d5a", "#b4559b", "#c9463d", "#7a6fd0")
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}.test{font-weight:600}.spread{stroke:#444;stroke-width:1.5}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.spread{stroke:#bbb}.page{fill:#1b1b1b}}"
)


def draw(title: str, records: Sequence[Record]) -> str:
    """The picture. Each test has its own scale, since prompt and generation differ by orders of magnitude."""
    tests = list(dict.fromkeys(record.test for record in records))
    builds = list(dict.fromkeys((record.instance, record.build) for record in records))
    labels = _labels(records)
    left = max([_LEFT, *(_LETTER * len(label) + 20 for label in labels.values())])
    width = _WIDTH - _LEFT + left
    body = [f'<text x="12" y="24" class="test">{escape(title)}</text>']
    top = 40
    for test in tests:
        group = [record for record in records if record.test == test]
        body.append(f'<text x="12" y="{top + 20}" class="test">{escape(test)}, tokens/s</text>')
        top += _HEADING
        scale = (width - left - _RIGHT) / max([r.speed + r.deviation for r in group] + [1e-9])
        for record in group:
            build = (record.instance, record.build)
            bar = _bar(record, top, left, scale, _COLOURS[builds.index(build) % len(_COLOURS)])
            body += [
                f'<text x="{left - 10}" y="{top + 14}" text-anchor="end">{escape(labels[build])}</text>',
                *bar,
            ]
            top += _BAR + _GAP
        top += _GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" viewBox="0 0 {width} {top}">'
    )
    page = '<rect class="page" width="100%" height="100%" fill="#fff"/>'
    return "\n".join(
        [head, f"<title>{escape(title)}</title>", f"<style>{_STYLE}</style>", page, *body, "</svg>", ""]
    )


def _labels(records: Sequence[Record]) -> dict[tuple[str, str], str]:
    """A name for each build: instance and number, or the whole id where another of the instance has that number too."""
    ids = {(r.instance, r.number): set[str]() for r in records}
    for record in records:
        ids[record.instance, record.number].add(record.build)
    return {
        (
            r.instance,
            r.build,
        ): f"{r.instance} {r.build if len(ids[r.instance, r.number]) > 1 else f'b{r.number}'}"
        for r in records
    }


def _bar(record: Record, top: float, left: float, scale: float, colour: str) -> list[str]:
    length, spread = record.speed * scale, record.deviation * scale
    middle, end = top + _BAR / 2, left + length
    low = max(left, end - spread)
    return [
        f'<rect x="{left}" y="{top}" width="{length:.1f}" height="{_BAR}" fill="{colour}"/>',
        f'<line class="spread" x1="{low:.1f}" x2="{end + spread:.1f}" y1="{middle}" y2="{middle}"/>',
        f'<text x="{end + spread + 8:.1f}" y="{top + 14}">{record.speed:,.1f}</text>',
    ]
