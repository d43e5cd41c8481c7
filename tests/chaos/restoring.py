"""A worker that restores checkpoints: `python -m tests.chaos.restoring WORKDIR`; a question is the folder of some."""

import contextlib
import hashlib
import io
import json
import sys
import time
from typing import Any

import jax
import numpy as np
from etils import epath

from diffcurr import experiment as experiment_lib
from diffcurr.errors import UserError
from diffcurr.main import quieten_libraries
from diffcurr.reporting.progress import Line
from diffcurr.training.checkpoint import Checkpoints
from diffcurr.training.workdir import read_config
from tests.chaos.worker import serve


def main() -> None:
    """Answers with the step and a hash of what is restored, what was said, and the error if there was one."""
    quieten_libraries()
    workdir = epath.Path(sys.argv[1])
    with contextlib.redirect_stdout(sys.stderr):
        experiment = experiment_lib.from_config(read_config(workdir)).with_clusters(workdir, Line())
    abstract = experiment.compiled.abstract_state

    def restored(folder: str) -> dict[str, Any]:
        said, began = io.StringIO(), time.monotonic()
        answer: dict[str, Any] = {"step": None, "hash": "", "error": "", "user_error": False}
        try:
            with contextlib.redirect_stderr(said):
                checkpoints = Checkpoints(folder)
                found = checkpoints.restore(abstract)
                checkpoints.close()
            if found is not None:
                state, *rest = found
                content = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
                for leaf in jax.tree.leaves(jax.device_get(state)):
                    content.update(np.asarray(leaf).tobytes())
                answer |= {"step": int(state.step), "hash": content.hexdigest()}
        except BaseException as error:
            answer |= {"error": f"{type(error).__name__}: {error}"[:500], "user_error": isinstance(error, UserError)}
        return answer | {"said": said.getvalue(), "seconds": round(time.monotonic() - began, 2)}

    serve(restored)


if __name__ == "__main__":
    main()
