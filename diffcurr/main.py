"""diffcurr's one way in: flags -> job.

python -m diffcurr.main --config=configs/digits.py [--job=train] [--workdir=...] [--config.key=value ...]
"""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from absl import app, flags, logging

from diffcurr import jobs
from diffcurr.errors import UserError

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Where the run's files go; runs/NAME or runs/NAME_VARIANT of the config if not given."
)
_JOB = flags.DEFINE_enum("job", "train", list(jobs.JOBS), "What to do.")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Of several processes: host:port of process 0; or auto.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Of several processes, announced by flags: how many.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Of several processes, announced by flags: which one, from 0.")
_CONNECT_TIMEOUT = flags.DEFINE_integer("connect_timeout", 60, "Seconds to wait for all processes to be there.")
_COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache",
    None,
    "Folder of compiled programs, which a later start reads; empty for none; JAX_COMPILATION_CACHE_DIR if not given.",
)
_OUT = flags.DEFINE_string(
    "out", None, "Folder for what is written; the workdir, or its folder encoded or export if not given."
)
# Flags that go with some jobs, which take their values as arguments of these names.
_OF_JOB: dict[str, dict[str, flags.FlagHolder[Any]]] = {
    "train": {
        "allow_change": flags.DEFINE_multi_string(
            "allow_change", [], "A key of the config that may differ from the one that the workdir was made with."
        ),
        "profile": flags.DEFINE_string("profile", "", "STEP:STEPS, the steps of which a trace for xprof is written."),
        "wandb": flags.DEFINE_string("wandb", None, "A project of Weights & Biases that is told of the run too."),
    },
    "sample": {
        "classes": flags.DEFINE_multi_integer("class", None, "A class to draw; given several times, they take turns."),
        "prompt": flags.DEFINE_multi_string("prompt", None, "A text to draw; given several times, they take turns."),
        "prompts": flags.DEFINE_string("prompts", None, "A file of texts to draw, one on each line."),
        "negative_prompt": flags.DEFINE_string("negative_prompt", "", "A text that guidance leads away from."),
        "seed": flags.DEFINE_integer("seed", None, "Seed of the samples; the config's if not given."),
        "out": _OUT,
    },
    "encode": {"out": _OUT},
    "export": {
        "out": _OUT,
        "format": flags.DEFINE_enum(
            "format", "public", ["public", "diffusers"], "Names and files of the network's own code, or of diffusers."
        ),
        "raw": flags.DEFINE_bool("raw", False, "Export the weights of the last step instead of the averaged ones."),
    },
    "compare": {"shard": flags.DEFINE_string("shard", None, "This machine's part of the runs, such as 0/2.")},
    "plan": {"topology": flags.DEFINE_string("topology", None, "The chips to plan for, such as v5e:16x16.")},
}

HELP = "A config file or the name of a packaged config, with :VARIANT after it; --config.KEY=VALUE overrides a value."


def main(argv: Sequence[str]) -> int:
    if not flags.FLAGS["verbosity"].present:
        quieten_libraries()
    if len(argv) > 1:
        raise UserError(f"argument {argv[1]!r} is not a flag: settings are given as --config.key=value")
    own = _OF_JOB.get(_JOB.value, {})
    for name, flag in {name: flag for flags_of in _OF_JOB.values() for name, flag in flags_of.items()}.items():
        if flag.present and name not in own:
            takers = " or ".join(job for job, flags_of in _OF_JOB.items() if name in flags_of)
            raise UserError(f"--{flag.name}={flag.value}: goes with --job={takers}")
    arguments = {name: flag.value for name, flag in own.items()}
    workdir = os.path.expanduser(_WORKDIR.value)
    job = jobs.find(_JOB.value)
    if _COMPILATION_CACHE.value is not None:
        from diffcurr.training import compilation_cache

        compilation_cache.use(_COMPILATION_CACHE.value)
    needs = jobs.JOBS[_JOB.value]
    if needs.devices:
        from diffcurr.training import distributed  # here and below only now: they import JAX, which takes seconds

        distributed.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value, _CONNECT_TIMEOUT.value)
        distributed.require_devices()
        if not needs.processes:
            distributed.require_one_process(f"--job={_JOB.value}")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # from here on there is something to clean up
    return job.run(flags.FLAGS["config"].value, workdir, **arguments)


def quieten_libraries() -> None:
    """Hides what libraries log and no user can act on."""
    logging.set_verbosity(logging.WARNING)  # they report every file they touch
    logging.get_absl_handler().addFilter(_is_news)
    sys.unraisablehook = _report


def _is_news(record: Any) -> bool:
    """Whether a line of a library's log is news: Orbax raises its errors, and warns of how it works inside.

    What asyncio reports are errors of Orbax's tasks that were left behind after one of them was raised.
    """
    return "orbax" not in record.pathname and record.name != "asyncio"


def _report(found: "sys.UnraisableHookArgs") -> None:
    """An exception that no one can catch; but not those of reads and writes that fail after Orbax has given up."""
    code = getattr(found.object, "cr_code", None)  # of a coroutine
    if str(found.exc_value) != "Event loop is closed" and "orbax" not in getattr(code, "co_filename", ""):
        sys.__unraisablehook__(found)


def cli() -> None:
    """Runs `main`; an error that the user can fix is one line and exit code 2."""
    # While modules are imported, an exception would come out of the middle of one of them.
    signal.signal(signal.SIGINT, lambda number, frame: _interrupted())
    try:
        app.run(main, flags_parser=_parse_flags)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        _interrupted()


def _interrupted() -> NoReturn:
    """One line, and out, whatever threads are doing."""
    sys.stdout.flush()
    os.write(2, b"interrupted\n")
    os._exit(128 + signal.SIGINT)


def _parse_flags(argv: list[str]) -> list[str]:
    """Loads the config that --config names, defines a flag for each of its keys, and parses all flags."""
    name, rest = _take_config(argv[1:])
    if name is None:
        flags.DEFINE_string("config", None, HELP)
        _parse([argv[0], *rest])  # which shows --help
        raise UserError("--config is missing: give a config file, or the name of a packaged config: --config=digits")
    without_devices = {f"job={name}" for name, needs in jobs.JOBS.items() if not needs.devices}
    if without_devices & {argument.lstrip("-") for argument in rest}:
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # read when JAX is imported: no TPU is looked for here
    from diffcurr import config as config_lib
    from diffcurr import experiment, parts  # every part that a config can name

    del experiment
    config = config_lib.load(name)
    try:
        config = config_lib.complete(config)
    except UserError as error:
        raise UserError(f"--config={name}: {error}") from error
    chosen, others = {}, []
    for argument in rest:
        key, _, value = argument.lstrip("-").partition("=")
        section = key.removeprefix("config.").removesuffix(".name")
        table = parts.TABLES.get(section)
        if key.startswith("config.") and table and value and not isinstance(table, parts.Several):
            chosen[section] = value
        else:
            others.append(argument)
    # All at once: a part may have no default for a part inside it.
    names = {f"{section}.name": name for section, name in chosen.items()}
    config = config_lib.changed(config, config_lib.unflatten(names))
    flags.FLAGS.set_default("workdir", os.path.join("runs", config_lib.run_name(name)))
    return _parse([argv[0], *others], config)


def _take_config(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """(what --config names, the other arguments)."""
    name, rest, waiting = None, [], list(arguments)
    while waiting:
        argument = waiting.pop(0)
        flag = argument.lstrip("-") if argument.startswith("-") else ""
        if waiting and flag.startswith(("config", "job")) and "=" not in flag and not waiting[0].startswith("-"):
            argument = f"{argument}={waiting.pop(0)}"  # a value behind a space
        if flag.partition("=")[0] == "config":
            name = argument.partition("=")[2]
        else:
            rest.append(argument)
    return name or None, rest


def _parse(argv: list[str], config: Any = None) -> list[str]:
    try:
        if config is not None:
            from ml_collections import config_flags

            config_flags.DEFINE_config_dict("config", config, help_string=HELP, sys_argv=argv)
        return flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        from diffcurr.config import RENAMED

        # ml_collections' words, without the stack it puts in them.
        cause: object = error
        while isinstance(cause, BaseException) and cause.args:  # some hold another
            cause = cause.args[0]
        text = str(cause)
        if "Traceback (most recent call last)" in text:
            text = text.strip().splitlines()[-1].removeprefix("ValueError: ")
        # For an unknown key they name one part alone, and one that is similar, if there is one.
        key, _, suggestion = text.partition("\n")
        for flag in (argument.partition("=")[0] for argument in argv):
            if flag.startswith("--config.") and key.strip("'") in flag.split("."):
                new = RENAMED.get(flag.removeprefix("--config."))
                suggestion = f"It is now {' and '.join(new)}." if new else suggestion
                text = f"{flag}: the config has no such key. {suggestion or 'docs/configuration.md lists them all.'}"
        raise UserError(" ".join(text.split())) from error


if __name__ == "__main__":
    cli()
