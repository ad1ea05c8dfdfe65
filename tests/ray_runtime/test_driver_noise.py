"""Which lines of the driver's standard error are dropped, and that nothing else is lost or held back."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from raydec.ray_runtime.driver_noise import without_harmless_lines

HARMLESS = (
    b"[2026-11-30 22:00:00,000 E 1 1] core_worker.cc:2255: Actor with class name: 'MapWorker(x)' and ID: '0' "
    b"has constructor arguments in the object store and max_restarts > 0. If the arguments go out of scope\n"
)


@pytest.mark.parametrize(
    ("written", "passed_on"),
    [
        ([HARMLESS], b""),
        ([HARMLESS, b"core_worker.cc: out of memory\n", HARMLESS], b"core_worker.cc: out of memory\n"),
        ([HARMLESS[:90], HARMLESS[90:], b"no newline at the end"], b"no newline at the end"),
        ([b"one\n\ntwo\n" * 20_000, HARMLESS], b"one\n\ntwo\n" * 20_000),
        ([], b""),
    ],
)
def test_only_the_harmless_line_is_dropped(
    written: list[bytes], passed_on: bytes, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    with without_harmless_lines():
        for text in written:
            os.write(2, text)
    assert capfdbinary.readouterr().err == passed_on


def test_other_lines_appear_while_the_block_runs(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with without_harmless_lines():
        os.write(2, HARMLESS + b"now\n")
        waited_until = time.monotonic() + 10
        while (seen := capfdbinary.readouterr().err) == b"" and time.monotonic() < waited_until:
            time.sleep(0.01)
        assert seen == b"now\n"


def test_a_process_that_outlives_the_block_does_not_hold_it_up() -> None:
    with without_harmless_lines():
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    assert child.poll() is None
    child.kill()
    child.wait()


def test_an_exception_leaves_standard_error_as_it_was(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    before = sys.stderr
    with pytest.raises(ValueError), without_harmless_lines():
        raise ValueError
    assert sys.stderr is before
    os.write(2, HARMLESS)
    assert capfdbinary.readouterr().err == HARMLESS


def test_python_still_finds_its_terminal() -> None:
    program = (
        "import os, sys\n"
        "from raydec.ray_runtime.driver_noise import without_harmless_lines\n"
        "with without_harmless_lines():\n"
        "    assert sys.stderr.isatty() and not os.isatty(2)\n"
        "    print('bar', file=sys.stderr)\n"
    )
    leader, follower = os.openpty()
    try:
        subprocess.run([sys.executable, "-c", program], stderr=follower, check=True, timeout=60)
        assert os.read(leader, 100) == b"bar\r\n"
    finally:
        os.close(leader)
        os.close(follower)
