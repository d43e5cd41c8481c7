"""A trained run's weights for others to load: `python -m diffcurr.main --config=... --job=export --format=diffusers`"""

import functools
import json
from collections.abc import Callable, Mapping

import numpy as np
from etils import epath
from flax import nnx
from ml_collections import ConfigDict

from diffcurr import atomic_file
from diffcurr import experiment as experiment_lib
from diffcurr.errors import UserError, concerning, first_line
from diffcurr.networks.convert import Format, export_torch, layout_of
from diffcurr.pretrained.arrays import to_bytes
from diffcurr.run import restored
from diffcurr.tasks.base import Folder
from diffcurr.training import distributed, sharding
from diffcurr.training.workdir import make_writable

PUBLIC = Folder("model.safetensors", {})


def run(
    config: ConfigDict,
    workdir: epath.PathLike,
    out: epath.PathLike | None = None,
    format: Format = "public",
    raw: bool = False,
) -> int:
    """Writes the weights under public names: model.safetensors, or diffusers' layout. Returns the exit code.

    Args:
      out: the folder; `export` in the workdir if None.
      format: the names of the code that the network was published with, or diffusers' names and files.
      raw: the weights of the last step instead of the averaged ones.

    Raises:
      UserError: if there is no checkpoint, no public network of this kind, or the folder cannot be written.
    """
    experiment = experiment_lib.from_config(config)
    graph, shapes = experiment.task.network(experiment)
    with concerning("--job=export"):
        folder = experiment.task.diffusers(experiment) if format == "diffusers" else PUBLIC
        layout = layout_of(nnx.merge(graph, shapes), format=format)
    found = restored(experiment, workdir)
    out = epath.Path(epath.Path(workdir) / "export" if out is None else out).expanduser()
    make_writable(out, "--out")
    params = sharding.on_host(found.state.params if raw else found.state.ema)
    if not distributed.is_primary():
        return 0
    step, kind = int(found.state.step), "raw" if raw else "averaged"
    arrays = export_torch(nnx.merge(graph, params), format)
    facts = {"trained": f"step {step}", "weights": kind}
    contents: dict[str, Callable[[], bytes]] = {folder.trained: functools.partial(to_bytes, arrays, facts)}
    contents |= {name: functools.partial(_read, read) for name, read in folder.others.items()}
    contents |= {name: functools.partial(_json, values) for name, values in folder.configs.items()}
    _write(out, contents)
    print(f"wrote {', '.join(contents)} into {out}: {len(arrays)} arrays, the {kind} weights of step {step}")
    for note in folder.notes if format == "diffusers" else layout.notes:
        print(f"note: {note}")
    return 0


def _write(out: epath.Path, contents: Mapping[str, Callable[[], bytes]]) -> None:
    """Each file whole or not at all; configs last, so that a folder with them has the weights."""
    for name, content in contents.items():
        path = out / name
        written = content()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file.replacing(path) as temporary:
                temporary.write_bytes(written)
        except (OSError, ImportError) as error:
            raise UserError(f"--out={out}: cannot be written ({first_line(error)}): name another folder") from error


def _read(read: Callable[[], Mapping[str, np.ndarray]]) -> bytes:
    return to_bytes(read())


def _json(values: object) -> bytes:
    return (json.dumps(values, indent=2, allow_nan=False) + "\n").encode()
