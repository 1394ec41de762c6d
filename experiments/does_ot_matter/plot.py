"""``does_ot_matter`` as a picture: accuracy against time, and along the line from the LP to the product coupling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otfew.reporting.accuracy_plot import spread
from otfew.reporting.canvas import CONTROL, INK, TRANSPORT, bars, caption, make_figure, to_png

Record = Mapping[str, Any]


def picture(record: Record, times: Record, plans: Record, line: Mapping[float, str], lp: str, product: str) -> bytes:
    """Draw paired differences to the LP against ms per episode, and against reg together with the plans' spread.

    Args:
        record: A panel as ``compare`` writes it, whose reference is the LP.
        times: Name -> "ms_per_episode".
        plans: Name -> "partners".
        line: reg -> name of the entry, ascending.
        lp: Name of the optimal plan's entry.
        product: Name of the product coupling's.

    Returns:
        A PNG file.
    """
    figure, panels = make_figure(1, 2, (13.5, 5.2), gridspec_kw={"wspace": 0.62, "width_ratios": (1.15, 1)})
    _against_time(panels[0][0], record, times, lp)
    _along_reg(panels[0][1], record, plans, line, (lp, product))
    p = record["protocol"]
    title = f"{p['data']['dataset']}, {p['way']}-way {p['shot']}-shot, {p['episodes']:,} episodes"
    figure.suptitle(caption(f"{title}; thick: 95 % over episodes, thin: over classes"), fontsize=10)
    return to_png(figure)


def _difference(record: Record, name: str) -> Record:
    """Return the paired difference of a entry to the LP; zero for the LP itself."""
    zero = {"mean": 0.0, "episode_ci": None, "class_ci": None}
    found: Record = record["methods"][name].get("difference", zero)
    return found


def _against_time(axes: Any, record: Record, times: Record, lp: str) -> None:
    """Draw every entry, its name beside the axes."""
    names = sorted(record["protocol"]["order"], key=lambda name: _difference(record, name)["mean"])
    axes.set_xscale("log")
    transport = {name for name in names if record["protocol"]["methods"][name]["method"] == "deepemd"}
    for name in names:
        colour = TRANSPORT if name in transport else CONTROL
        bars(axes, times[name]["ms_per_episode"], _difference(record, name), colour)
    low, high = axes.get_ylim()
    places = spread([(100 * _difference(record, name)["mean"] - low) / (high - low) for name in names], 0.062)
    for name, place in zip(names, places, strict=True):
        axes.annotate(
            caption(f"LP ({lp})" if name == lp else name),
            (times[name]["ms_per_episode"], 100 * _difference(record, name)["mean"]),
            xytext=(1.04, place),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=TRANSPORT if name in transport else INK,
            arrowprops={"arrowstyle": "-", "color": "0.75", "linewidth": 0.7, "shrinkB": 3, "relpos": (0, 0.5)},
            annotation_clip=False,
        )
    axes.set_ylim(low, high)
    axes.axhline(0, color=TRANSPORT, linestyle=":", linewidth=1)
    axes.set_xlabel("ms per episode, features cached (log scale)")
    axes.set_ylabel("accuracy minus that of the LP, points")
    axes.grid(alpha=0.25)


def _along_reg(axes: Any, record: Record, plans: Record, line: Mapping[float, str], ends: tuple[str, str]) -> None:
    """Draw the entropic plans between their two ends."""
    regs = list(line)
    for reg, name in line.items():
        bars(axes, reg, _difference(record, name), TRANSPORT)
    axes.plot(regs, [100 * _difference(record, name)["mean"] for name in line.values()], color=TRANSPORT, linewidth=1)
    axes.axhline(0, color=TRANSPORT, linestyle=":", linewidth=1, label="LP")
    end = 100 * _difference(record, ends[1])["mean"]
    axes.axhline(end, color=CONTROL, linestyle=":", linewidth=1, label="product coupling")
    axes.set_xscale("log")
    axes.set_xlabel("reg of the entropic plan, in units of the cost")
    axes.set_ylabel("accuracy minus that of the LP, points", color=TRANSPORT)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="lower left")
    twin = axes.twinx()
    twin.plot(regs, [plans[name]["partners"] for name in line.values()], "s-", color="0.45", markersize=4, linewidth=1)
    for name in ends:
        twin.axhline(plans[name]["partners"], color="0.6", linestyle=(0, (1, 4)), linewidth=1)
    twin.set_ylabel("partners of a node (grey)", color="0.35")
    twin.set_ylim(bottom=0)
