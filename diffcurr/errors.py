"""The one kind of error that is for the user to fix."""

import contextlib
from collections.abc import Iterator


class UserError(Exception):
    """Something the user gave cannot work. The message is one line: the value, what is wrong with it, the remedy.

    `diffcurr.main` prints it without a traceback and exits with code 2.
    """


def first_line(error: BaseException, most: int = 200) -> str:
    """What an error of a library says first; its class where it says nothing."""
    try:
        text = str(error).strip()
    except Exception:  # an error whose own text fails
        text = ""
    return text.split("\n")[0][:most] or type(error).__name__


@contextlib.contextmanager
def concerning(part: str) -> Iterator[None]:
    """Turns a ValueError raised while `part` of a config is read into a UserError that says so."""
    try:
        yield
    except ValueError as error:
        raise UserError(f"{part}: {error}") from error
