"""How the interpreter is set up: what is imported, and when garbage is looked for."""

import gc
import sys
import weakref
from collections.abc import Iterator
from importlib import import_module

import pytest

from latchkey.bootstrap import runtime as interpreter
from latchkey.bootstrap.runtime import importing, tidy, tuned


class Knot:
    """Garbage that only the collector can find."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    threshold, switch_s = gc.get_threshold(), sys.getswitchinterval()
    yield
    gc.set_threshold(*threshold)
    sys.setswitchinterval(switch_s)
    gc.unfreeze()


def an_old_knot() -> "weakref.ref[Knot]":
    """One that has been looked at often enough, and is garbage since."""
    knot = Knot()
    gc.collect()
    return weakref.ref(knot)


def some_news() -> None:
    gc.collect(0)


@pytest.mark.parametrize("name", ["rich", "advanced_alchemy.service"])
def test_what_is_not_needed_is_not_found_by_imports_meanwhile(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, name, raising=False)

    with importing(), pytest.raises(ModuleNotFoundError, match="halted"):
        import_module(name)

    assert name not in sys.modules


def test_what_is_there_already_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich", sys)

    with importing():
        assert import_module("rich") is sys

    assert import_module("rich") is sys


def test_nothing_is_collected_while_others_are_imported_and_nothing_of_it_later() -> None:
    with importing():
        assert not gc.isenabled()
        knot = weakref.ref(Knot())
    gc.collect()

    assert gc.isenabled()
    assert knot() is not None


async def test_a_service_collects_little_at_a_time() -> None:
    async with tuned():
        young, middle, _ = gc.get_threshold()

        assert young * middle <= 25_000


def test_old_garbage_is_collected_where_that_is_quick() -> None:
    gc.freeze()
    knot = an_old_knot()
    some_news()

    tidy()

    assert knot() is None


def test_old_garbage_waits_while_there_is_much_to_look_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter, "_QUICK", 0)
    knot = an_old_knot()
    some_news()

    tidy()

    assert knot() is not None


def test_nothing_is_looked_through_where_nothing_is_new() -> None:
    gc.freeze()
    gc.disable()
    knot = an_old_knot()

    tidy()

    assert knot() is not None
    gc.enable()
