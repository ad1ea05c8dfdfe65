"""Keep one harmless line of Ray's C++ code off the driver's standard error.

Ray's core worker writes errors to file descriptor 2 of the process, where Python's logging does not see them,
and no setting of Ray drops one line without the others.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_STDERR = 2
# Ray Data passes arguments to its actors through the object store; the driver keeps them while it runs.
_HARMLESS = b"has constructor arguments in the object store and max_restarts > 0"
_END = b"\0end of redirection\n"


@contextmanager
def without_harmless_lines() -> Iterator[None]:
    """Drop Ray's line about arguments of restarted actors while the block runs; pass on all other output.

    ``sys.stderr`` is not redirected, so that a progress bar still finds its terminal.
    """
    try:
        before = os.dup(_STDERR)
    except OSError:  # a process without standard error has nothing to be kept clean
        yield
        return
    receiving, sending = os.pipe()
    passing = threading.Thread(target=_pass_on, args=(receiving, before), daemon=True)
    passing.start()
    python_stderr = sys.stderr
    try:
        with os.fdopen(os.dup(before), "w", buffering=1, errors="backslashreplace") as direct:
            if _writes_to_descriptor(python_stderr):
                python_stderr.flush()
                sys.stderr = direct
            os.dup2(sending, _STDERR)
            yield
    finally:
        sys.stderr = python_stderr
        os.dup2(before, _STDERR)
        # Not by closing: a process that was started meanwhile may hold the pipe open.
        os.write(sending, _END)
        passing.join()
        for descriptor in (before, receiving, sending):
            os.close(descriptor)


def _writes_to_descriptor(stream: TextIO) -> bool:
    try:
        return stream.fileno() == _STDERR
    except (AttributeError, OSError):
        return False


def _pass_on(receiving: int, target: int) -> None:
    """Copy complete lines as they come, except harmless ones, until the end is announced."""
    text, ended = b"", False
    while not ended:
        text += os.read(receiving, 65_536)
        ended = text.endswith(_END)
        *lines, text = text.removesuffix(_END).split(b"\n")
        kept = [line + b"\n" for line in lines if _HARMLESS not in line]
        os.write(target, b"".join(kept) + (text if ended else b""))
