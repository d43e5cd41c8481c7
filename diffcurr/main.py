"""diffcurr's one way in: flags -> job.

python -m diffcurr.main --config=configs/digits.py [--job=train] [--workdir=...] [--config.key=value ...]
"""

import importlib
import os
import sys
from collections.abc import Sequence

from absl import app, flags, logging
from ml_collections import config_flags

from diffcurr.errors import UserError

JOBS = ("train", "sample", "evaluate", "analyze", "features", "compare", "plan")  # modules of diffcurr.jobs

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run's files go; runs/NAME or runs/NAME_VARIANT of the config file if not given."
)
_JOB = flags.DEFINE_enum("job", "train", JOBS, "What to do.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Of several processes: host:port of process 0; or auto.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Of several processes by hand: how many.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Of several processes by hand: which one this is, from 0.")
_CONNECT_TIMEOUT = flags.DEFINE_integer("connect_timeout", 60, "Seconds to wait for all processes to be there.")
_SHARD = flags.DEFINE_string("shard", None, "With --job=compare: this machine's part of the runs, such as 0/2.")
_TOPOLOGY = flags.DEFINE_string("topology", None, "With --job=plan: the chips to plan for, such as v5e:16x16.")


def main(argv: Sequence[str]) -> int:
    if not flags.FLAGS["verbosity"].present:
        logging.set_verbosity(logging.WARNING)  # libraries report every file they touch
    if len(argv) > 1:
        raise UserError(f"argument {argv[1]!r} is not a flag: settings are given as --config.key=value")
    if _CONFIG.value is None:
        raise UserError("--config is missing: give a config file, such as --config=configs/digits.py")
    # FILE or FILE:VARIANT, the latter an argument of its get_config.
    path, _, variant = config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")
    if not os.path.exists(path):
        raise UserError(f"--config={path}: there is no such file")
    name = os.path.splitext(os.path.basename(path))[0] + (f"_{variant}" if variant else "")
    workdir = _WORKDIR.value or os.path.join("runs", name)
    if _TOPOLOGY.value and _JOB.value != "plan":
        raise UserError(f"--topology={_TOPOLOGY.value}: goes with --job=plan")
    if _SHARD.value and _JOB.value != "compare":
        raise UserError(f"--shard={_SHARD.value}: goes with --job=compare")
    arguments = {}
    if _JOB.value == "compare":
        arguments["shard"] = _SHARD.value
    if _JOB.value == "plan":
        arguments["topology"] = _TOPOLOGY.value
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # read when JAX is imported: no TPU is looked for here
    else:
        from diffcurr.training import distributed  # only now: it imports JAX

        distributed.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, _CONNECT_TIMEOUT.value)
        if _JOB.value != "train":
            distributed.require_one_process(f"--job={_JOB.value}")
    job = importlib.import_module(f"diffcurr.jobs.{_JOB.value}")  # only now: jobs import JAX, which takes seconds
    return job.run(_CONFIG.value, workdir, **arguments)


def cli() -> None:
    """Runs `main`; an error that is the user's to mend is one line and exit code 2."""
    try:
        app.run(main, flags_parser=_parse_flags)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, FileNotFoundError) as error:
        # A config file's own mistakes and those in overrides: ml_collections' words, without the stack it puts in them.
        cause: object = error
        while isinstance(cause, BaseException) and cause.args:  # some hold another
            cause = cause.args[0]
        text = str(cause)
        if "Traceback (most recent call last)" in text:
            text = text.strip().splitlines()[-1].removeprefix("ValueError: ")
        # Of an unknown key they name one part alone, and one that is similar, if any is.
        key, _, suggestion = text.partition("\n")
        for flag in (argument.partition("=")[0] for argument in argv):
            if flag.startswith("--config.") and key.strip("'") in flag.split("."):
                remedy = suggestion or "What a part takes beside the keys that its config has is set in a config file."
                text = f"{flag}: the config has no such key. {remedy}"
        raise UserError(" ".join(text.split())) from error


if __name__ == "__main__":
    cli()
