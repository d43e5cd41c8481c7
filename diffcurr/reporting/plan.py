"""What a plan found, in words: the text of plan.md."""

from collections.abc import Mapping
from typing import Any

from matplotlib.ticker import EngFormatter

_bytes, _flops, _seconds = (EngFormatter(unit, places=1) for unit in ("B", "FLOP", "s"))


def markdown(plan: Mapping[str, Any]) -> str:
    """The text of plan.md: a table of what the step needs, and of the bounds on its time.

    Args:
      plan: the content of plan.json: the `topology`, everything that `planning.costs.facts` finds, and what was
        searched for: `largest_batch_size` if the step fits, else `would_fit`.
    """
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan["mesh"].items())
    memory, flops, bounds = plan["chip_bytes"], plan["step_flops"], plan["lower_bounds_seconds"]
    needed, limit = flops["forward_and_backward"], max(bounds, key=bounds.get)
    used = sum(size for name, size in memory.items() if name != "memory")
    rows = [
        ("chips, processes", f"{plan['chips']}, {plan['processes']}"),
        ("mesh", mesh),
        ("parameters", f"{plan['parameters']:,}"),
        ("global batch, compute dtype, recomputation", f"{plan['batch_size']:,}, {plan['dtype']}, {plan['remat']}"),
        *plan["choices"].items(),
    ]
    if plan["does_not_fit"]:
        rows += [
            ("**fits**", f"**no**: {plan['does_not_fit']}"),
            ("state a chip", _bytes(memory["state"])),
            ("the first setting tried that fits", f"`{plan['would_fit']}`" if plan["would_fit"] else "none"),
        ]
        return _table(plan, rows)
    compilers = flops["compiler_a_chip_bodies_of_loops_once"]
    counted = f"counts {_flops(compilers)}, the bodies of loops once" if compilers else "counts no operations for it"
    parts = ", ".join(f"{name} {_bytes(size)}" for name, size in memory.items() if name != "memory")
    rows += [
        ("**fits**", f"**{'yes' if plan['fits'] else 'no'}**: {_bytes(used)} of {_bytes(memory['memory'])}"),
        ("memory a chip", parts),
        ("largest global batch found to fit", f"{plan['largest_batch_size']:,}" if plan["largest_batch_size"] else "-"),
        ("flops a step", f"{_flops(needed)} for forward and backward, {_flops(flops['recomputed'])} again"),
        (
            "flops a chip",
            f"{_flops((needed + flops['recomputed']) / plan['chips'])} counted in the program; the compiler {counted}",
        ),
    ]
    rows += [
        (f"{name} a step", f"{kind['operations']:,}, a chip sends {_bytes(kind['bytes'])}")
        for name, kind in plan["traffic"].items()
    ]
    if plan["least_traffic_bytes"]:
        ratio = plan["traffic_bytes"] / plan["least_traffic_bytes"]
        rows.append(("traffic over the least for this mesh", f"{ratio:.2f} x {_bytes(plan['least_traffic_bytes'])}"))
    if plan["estimated_cycles"]:
        seconds = f": {_seconds(plan['estimated_seconds'])} a step" if plan["estimated_seconds"] else ""
        rows.append(
            (
                "the compiler's own estimate",
                f"{plan['estimated_cycles'] / 1e6:,.1f} million cycles{seconds}; a model of fusions and loops one "
                "after another, not a measurement",
            )
        )
    rows += [
        (
            "lower bound on a step",
            f"{_seconds(plan['lower_bound_seconds'])}, by {limit} ("
            + ", ".join(f"{name} {_seconds(seconds)}" for name, seconds in bounds.items())
            + "); a bound, not a forecast",
        ),
        ("at that bound", f"{plan['images_a_second_at_bound']:,.0f} images/s"),
        (f"the config's {plan['steps']:,} steps at that bound", f"{plan['chip_hours_at_bound']:,.0f} chip-hours"),
        (
            "compile time",
            f"{plan['compile_seconds']:.0f} s as training compiles it, "
            f"{plan['compile_seconds_least_effort']:.0f} s with least effort",
        ),
        ("executables over all stages", str(plan["executables_over_all_stages"])),
    ]
    return _table(plan, rows)


def _table(plan: Mapping[str, Any], rows: list[tuple[str, str]]) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows]
    return "\n".join([f"# The train step on {plan['topology']}", "", "| | |", "|---|---|", *lines, ""])
