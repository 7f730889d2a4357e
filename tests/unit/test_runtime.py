"""Tuning of the garbage collector and of thread switching, and the names of worker processes."""

import gc
import multiprocessing
import sys
import weakref
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from latchkey.bootstrap import runtime
from latchkey.bootstrap.runtime import collect_if_quick, gc_paused, name_worker_process, tuned


class Cycle:
    """Garbage that only the collector can find."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def restored_interpreter() -> Iterator[None]:
    threshold, switch_s = gc.get_threshold(), sys.getswitchinterval()
    yield
    gc.set_threshold(*threshold)
    sys.setswitchinterval(switch_s)
    gc.unfreeze()


def old_garbage() -> "weakref.ref[Cycle]":
    """A cycle in the oldest generation that has become garbage."""
    cycle = Cycle()
    gc.collect()
    return weakref.ref(cycle)


def add_new_objects() -> None:
    gc.collect(0)


def test_gc_during_imports_is_paused_and_imported_objects_are_never_collected() -> None:
    with gc_paused():
        assert not gc.isenabled()
        cycle = weakref.ref(Cycle())
    gc.collect()

    assert gc.isenabled()
    assert cycle() is not None


async def test_gc_of_running_service_uses_small_generations() -> None:
    async with tuned():
        generation_0, generation_1, _ = gc.get_threshold()

        assert generation_0 * generation_1 <= 25_000


def test_full_collection_with_few_old_objects_collects_old_garbage() -> None:
    gc.freeze()
    cycle = old_garbage()
    add_new_objects()

    collect_if_quick()

    assert cycle() is None


def test_full_collection_with_many_old_objects_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_MAX_OLD_OBJECTS", 0)
    cycle = old_garbage()
    add_new_objects()

    collect_if_quick()

    assert cycle() is not None


def test_full_collection_without_new_objects_is_skipped() -> None:
    gc.freeze()
    gc.disable()
    cycle = old_garbage()

    collect_if_quick()

    assert cycle() is not None
    gc.enable()


def process_names() -> tuple[str, str]:
    """The command line as `ps -ef` shows it, and the name as `top` does."""
    line = Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
    return line.decode(), Path("/proc/self/comm").read_text().strip()


def send_process_name(connection: Connection) -> None:
    name_worker_process()
    connection.send(process_names())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_worker_process_has_a_readable_name_and_this_process_keeps_its_own() -> None:
    """The worker is started as uvicorn starts it."""
    before = process_names()
    receive, send = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context("spawn").Process(target=send_process_name, args=(send,))
    worker.start()
    assert receive.poll(60)
    names = receive.recv()
    worker.join()
    name_worker_process()

    assert names == (f"latchkey: {worker.name.removeprefix('SpawnProcess-')}",) * 2
    assert process_names() == before
