"""One look for every figure: colours that always mean the same thing, quiet axes, text that stays text in the SVG."""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from matplotlib import rc_context
from matplotlib.figure import Figure as AnyFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from posterity.storage import replacing
from posterity.text import short, visible

BAYESIAN, TWIN = "#1f5fa8", "#b9814f"
MODELS = (BAYESIAN, TWIN)
ALEATORIC, EPISTEMIC = "#4f9d8f", "#a8487a"
RIGHT, WRONG = "#8c99a6", "#c2452d"
INK, MUTED, GRID = "#22282e", "#6b7680", "#e6e9ec"
WIDE, HALF = 10.0, 4.9  # inches: the page's full and half width
CROWD = 1500  # more points than this are drawn as one bitmap

LONGEST, MOST, TICK = 120, 8, 24  # characters of a line of text, lines, and characters at a tick

Axes = Any  # matplotlib ships no types


class Figure(AnyFigure):
    """A figure whose texts are shown as they are written: names of classes, columns and data sets are others' choice.

    `$` begins no mathematics, invisible characters are written out, and what is very long is cut; a sign that
    the font lacks is no matter, as a page's reader has fonts of their own.
    """

    def draw(self, renderer: Any) -> None:
        """Draw, as matplotlib calls it whenever it measures, shows or saves."""
        own = {text for ax in self.axes for axis in (ax.xaxis, ax.yaxis) for text in _numbers(axis)}
        for text in self.findobj(Text):
            if text not in own:
                _as_written(text)
        engine = self.get_layout_engine()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            if self.canvas.is_saving() and self.axes and isinstance(engine, ConstrainedLayoutEngine):
                engine.execute(self)  # Matplotlib draws twice to save, at first for the layout's sake alone
            else:
                super().draw(renderer)


@dataclass(frozen=True)
class _Cut:
    """The name at a tick, cut where it is long."""

    name: Callable[..., Any]

    def __call__(self, place: Any, number: Any = None) -> str:
        return short(str(self.name(place, number)), TICK)


def _numbers(axis: Any) -> list[Any]:
    """Return the labels of an axis's ticks that are numbers of matplotlib's own writing; where they are names, cut those."""
    found = []
    for ticks, own in ((axis.major, axis.get_major_ticks()), (axis.minor, axis.get_minor_ticks())):
        formatter = ticks.formatter
        if not isinstance(formatter, FuncFormatter):  # `set_xticks(places, names)` makes one, too
            found += [text for tick in own for text in (tick.label1, tick.label2)]
        elif not isinstance(formatter.func, _Cut):
            formatter.func = _Cut(formatter.func)
    return found


def _as_written(text: Any) -> None:
    """Take from a text what it would do beyond being read."""
    text.set_parse_math(False)
    written = text.get_text()
    shown = "\n".join(short(line, LONGEST) for line in written.split("\n")[:MOST])
    if shown != written:
        text.set_text(shown)


def panels(count: int, *, width: float = WIDE, height: float = 3.1) -> tuple[Figure, NDArray[np.object_]]:
    """Return a figure with a row of axes."""
    figure = Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(wspace=0.06))
    axes = figure.subplots(1, count, squeeze=False)[0]
    for ax in axes:
        quiet(ax)
    return figure, axes


def quiet(ax: Axes) -> None:
    """Leave of the axes what carries meaning."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(MUTED)
    ax.tick_params(colors=MUTED, labelsize=9)
    ax.grid(color=GRID, linewidth=0.8)
    ax.set_axisbelow(True)


def label(ax: Axes, title: str, x: str, y: str = "") -> None:
    """Name the axes, the title at the left."""
    ax.set_title(title, loc="left", fontsize=10.5, color=INK)
    ax.set_xlabel(x, fontsize=9.5, color=MUTED)
    ax.set_ylabel(y, fontsize=9.5, color=MUTED)


def legend(ax: Axes, loc: str = "best", **kwargs: Any) -> None:
    """Add a legend without a frame, by itself where it hides least: our figures hold few curves, so that is quickly found.

    The place is named because Matplotlib warns of a default one that took it over a second, as on a busy machine.
    """
    ax.legend(loc=loc, frameon=False, fontsize=9, labelcolor=INK, **kwargs)


def wide_range(axis: Any, low: float, high: float) -> None:
    """Make an axis logarithmic where positive values reach over a factor of ten, with plain numbers at its ticks."""
    if low <= 0 or high < 10 * low:
        return
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 2000 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def plain(axis: Any, most: int = 5) -> None:
    """Write an axis's numbers as a file has them, no power of ten apart, and few enough that long ones fit."""
    axis.set_major_locator(MaxNLocator(most))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _positional(value)))


def _positional(value: float) -> str:
    near = float(f"{value:.10g}")
    if near and not 1e-5 <= abs(near) < 1e10:
        return f"{near:g}".replace("-", "−")
    return np.format_float_positional(near, trim="-").replace("-", "−")


def save(figure: AnyFigure, path: Path) -> None:
    """Write a figure to a file, of the kind that its name ends in, whole or not at all.

    Raises:
        OSError: as the system does, with the name of `path`.
    """
    drawn = BytesIO()  # a disk that is full in the middle of it is no error of the drawing
    figure.savefig(drawn, dpi=150, format=path.suffix.removeprefix(".").lower())
    with replacing(path) as part:
        part.write_bytes(drawn.getvalue())


def svg(figure: AnyFigure, alt: str) -> Markup:
    """Return the figure as an inline SVG element that scales with the page and says to a screen reader what it shows."""
    text, alt = StringIO(), visible(alt)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": alt}):
        figure.savefig(text, format="svg", dpi=150, transparent=True, metadata={"Date": None, "Creator": None})
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    drawing = re.sub(r'<g id="[^"]*"', "<g", drawing)  # several drawings share the page: no two ids may be equal
    drawing = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", drawing, count=1)
    inches = figure.get_figwidth()
    head = f'<svg role="img" aria-label="{escape(alt)}" style="width:{100 * inches / WIDE:.1f}%;--inches:{inches:.2f}"'
    return Markup(drawing.replace("<svg", head, 1))
