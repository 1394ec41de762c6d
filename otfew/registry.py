"""Classes by name, imported when they are asked for: what there is can be listed without importing torch."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Generic, TypeVar, cast

Kind = TypeVar("Kind")


class Registry(MutableMapping[str, Kind], Generic[Kind]):
    """A mapping from names to what ``package.module:attribute`` says, imported on first access.

    Names, their order, ``in`` and ``len`` cost no import. An entry may be replaced or added by another path or by
    the object itself.

    Args:
        paths: Name -> "package.module:attribute".

    Examples:
        >>> table = Registry({"ordered": "collections:OrderedDict"})
        >>> list(table), "ordered" in table, table["ordered"].__name__
        (['ordered'], True, 'OrderedDict')
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._entries: dict[str, str | Kind] = dict(paths)

    def __getitem__(self, name: str) -> Kind:
        entry = self._entries[name]
        return cast("Kind", load(entry)) if isinstance(entry, str) else entry

    def place(self, name: str) -> str | Kind:
        """Say where an entry is, without importing it; an entry that was replaced by an object is that object."""
        return self._entries[name]

    def __setitem__(self, name: str, entry: str | Kind) -> None:
        self._entries[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __repr__(self) -> str:
        return f"Registry({', '.join(self)})"


def load(path: str) -> Any:
    """Import what "package.module:attribute" names."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def exported(package: str, paths: Mapping[str, str], name: str) -> Any:
    """Return what a package exports under a name; for its ``__getattr__``.

    Args:
        package: Name of the package.
        paths: Exported name -> "package.module:attribute".
        name: What is asked for.

    Raises:
        AttributeError: The package exports nothing of the name.
    """
    if name not in paths:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    return load(paths[name])


def by_class(paths: Iterable[str]) -> dict[str, str]:
    """Index paths by the attribute that they end in: what a package exports."""
    return {path.partition(":")[2]: path for path in paths}
