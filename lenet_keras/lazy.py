"""Names of a package that are imported when they are first used, so that importing the package stays quick."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(package: str, home: Mapping[str, Sequence[str]]) -> Callable[[str], Any]:
    """A module's `__getattr__` (PEP 562) that finds each name in its home.

    Args:
        package: the `__name__` of the package.
        home: for each submodule, relative to `package`, the names that it defines.
    """
    submodule_of = {name: submodule for submodule, names in home.items() for name in names}

    def find(name: str) -> Any:
        if name not in submodule_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f"{package}.{submodule_of[name]}"), name)

    return find
