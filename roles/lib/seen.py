"""What facts told of a host, remembered until an operation changes it: a deploy that changes nothing asks once."""

from __future__ import annotations

from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from pyinfra import host, state
from pyinfra.api import FactBase
from pyinfra.api.host import Host
from pyinfra.context import ctx_host

T = TypeVar("T")
_told: WeakKeyDictionary[Host, dict[str, Any]] = WeakKeyDictionary()


def this_host() -> Host:
    """The host itself; `pyinfra.host` stands for whichever is at work."""
    context: Any = ctx_host  # its methods carry no types
    found: Host = context.get()
    return found


def changed() -> int:
    """How many operations have changed this host in this run."""
    done = [op.operation_meta for op in state.ops[this_host()].values()]
    return sum(1 for meta in done if meta.is_complete() and meta.did_change())


def seen(fact: type[FactBase[T]], **arguments: Any) -> T:
    """A fact of this host, asked again only after an operation has changed something. For the beginning of an
    operation: what its own commands do is not noticed before its end."""
    told = _told.setdefault(this_host(), {})
    key = f"{state.is_executing} {changed()} {fact.__module__}.{fact.__qualname__} {arguments}"
    if key not in told:
        told[key] = host.get_fact(fact, **arguments)
    return told[key]  # type: ignore[no-any-return]  # the dictionary holds answers of all facts
