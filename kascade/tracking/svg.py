"""The few SVG primitives behind the report's figures. All text and attributes are escaped here.

Colours are CSS classes, so that one figure serves light, dark and printed pages alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True, slots=True)
class Scale:
    """Linear map from data (`low`..`high`) to pixels (`start`..`end`); a flat domain maps to the middle."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        if self.high == self.low:
            return (self.start + self.end) / 2
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def element(tag: str, *children: str, **attributes: str | float | None) -> str:
    """An SVG element. Attributes of value None are left out; `_` in names becomes `-`, at their end nothing.

    Children are markup already; pass user text through `words`.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{written}>{''.join(children)}</{tag}>" if children else f"<{tag}{written}/>"


def _attribute(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def words(text: str) -> str:
    """User text as SVG content."""
    return escape(text)


def title(text: str) -> str:
    """A `<title>`: what a pointer shows and a screen reader says."""
    return element("title", words(text))


def text(x: float, y: float, content: str, *, class_: str = "label", anchor: str = "start") -> str:
    return element("text", words(content), x=x, y=y, class_=class_, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> str:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def polyline(points: Iterable[tuple[float, float]], class_: str) -> str:
    return element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_)


def figure(name: str, width: float, height: float, body: Sequence[str]) -> str:
    """A whole drawing, scaled by its container, with its accessible name."""
    return element(
        "svg",
        title(name),
        *body,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_label=name,
        style=f"max-width:{width:g}px",
    )


def shorten(content: str, length: int) -> str:
    return content if len(content) <= length else content[: length - 1] + "…"


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers within [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]
