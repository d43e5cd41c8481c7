"""Modules of a package that are imported when they are first named."""

import importlib
from collections.abc import Callable
from types import ModuleType


def modules_of(package: str) -> Callable[[str], ModuleType]:
    """A module's `__getattr__` (PEP 562) for a package: `package.name` imports the module of that name.

    Raises:
      AttributeError: from the result, if the package has no such module.
    """

    def import_module(name: str) -> ModuleType:
        path = f"{package}.{name}"
        if not name.startswith("_"):
            try:
                return importlib.import_module(path)
            except ModuleNotFoundError as error:
                if error.name != path:  # a package that it needs is missing
                    raise
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return import_module
