"""Rows of numbers in a workdir: `metrics.jsonl` and `evaluations.jsonl`."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

METRICS = "metrics.jsonl"  # a row each logged interval
EVALUATIONS = "evaluations.jsonl"  # a row each time that samples were compared with the data


def read_rows(workdir: epath.PathLike, file: str = METRICS) -> list[dict[str, Any]]:
    """The rows of a workdir's `file`, oldest first.

    A last line cut off by a crash is left out; so is, with a warning, any line that is no row.
    """
    path = epath.Path(workdir) / file
    if not path.exists():
        return []
    rows, damaged = [], []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and type(row.get("step")) is int:
            rows.append(row)
        elif line.endswith(b"\n"):
            damaged.append(number)
    if damaged:
        lines = ", ".join(map(str, damaged[:5])) + (f" and {len(damaged) - 5} more" if len(damaged) > 5 else "")
        print(f"WARNING: {path}: left out what is no row of numbers: line {lines}", file=sys.stderr, flush=True)
    return rows


def by_cluster(rows: Sequence[Mapping[str, Any]], name: str, clusters: int) -> Float[np.ndarray, "row cluster"]:
    """The numbers of each cluster under a name; NaN where a row has none, as those of older versions, or others."""

    def numbers(row: Mapping[str, Any]) -> list[float]:
        found = row.get(name)
        if not isinstance(found, list) or len(found) != clusters:
            return [np.nan] * clusters
        return [float(one) if isinstance(one, int | float) else np.nan for one in found]

    return np.array([numbers(row) for row in rows], np.float64).reshape(len(rows), clusters)
