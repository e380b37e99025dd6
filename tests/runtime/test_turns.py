"""Many read at once, one writes alone, and nobody waits for ever."""

import threading
import time

import pytest

from s3router.runtime.turns import Turns

SOON = 10.0


def start(work):
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_readers_are_together():
    turns, meet = Turns(), threading.Barrier(3, timeout=SOON)

    def read():
        with turns.together():
            meet.wait()

    threads = [start(read), start(read)]
    with turns.together():
        meet.wait()
    for thread in threads:
        thread.join(SOON)
    assert not meet.broken


def test_a_writer_waits_for_readers_and_goes_before_new_ones():
    turns, order, inside = Turns(), [], threading.Event()

    def write():
        with turns.alone():
            order.append("write")

    def read():
        with turns.together():
            order.append("read")

    with turns.together():
        writer = start(write)
        deadline = time.monotonic() + SOON
        while not turns._writers and time.monotonic() < deadline:
            time.sleep(0.001)
        reader = start(read)
        inside.wait(0.05)
        assert order == []
    writer.join(SOON)
    reader.join(SOON)
    assert order == ["write", "read"]


def test_writers_are_alone():
    turns, inside, most = Turns(), [0], []

    def write():
        for _ in range(50):
            with turns.alone():
                inside[0] += 1
                most.append(inside[0])
                time.sleep(0)
                inside[0] -= 1

    for thread in [start(write) for _ in range(4)]:
        thread.join(SOON)
    assert len(most) == 200 and max(most) == 1


def test_an_error_leaves_the_way_free():
    turns = Turns()
    for turn in (turns.together, turns.alone, turns.together):
        with pytest.raises(ValueError, match="inside"), turn():
            raise ValueError("inside")
    with turns.alone():
        pass
