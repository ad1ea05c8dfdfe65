"""Shared by all benchmarks: description of the machine, summary of samples, JSON and a dated page."""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import platform
import statistics
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def argument_parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser whose help is a module's unformatted docstring."""
    return argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


def machine() -> str:
    """A description of the machine in one line: cores, GPU, versions, and load."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return (
        f"{os.cpu_count()} CPU cores, {gpu}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"load average {load}"
    )


def spread(samples: Sequence[float]) -> dict[str, float]:
    """Median, minimum and maximum."""
    return {
        "median": statistics.median(samples),
        "min": min(samples),
        "max": max(samples),
        "count": len(samples),
    }


def shown(values: dict[str, float], digits: int = 2) -> str:
    """``median (min to max)``."""
    return f"{values['median']:.{digits}f} ({values['min']:.{digits}f} to {values['max']:.{digits}f})"


def touched(gib: float) -> str:
    """A mention of ``--touch-gib`` as the end of a sentence; empty if it was not used."""
    return f", {gib:g} GiB of memory used and freed just before each process" if gib else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def write_results(name: str, page: str, numbers: dict[str, Any]) -> Path:
    """``results/DATE-name.md`` and ``.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{date.today().isoformat()}-{name}.md"
    path.write_text(page.rstrip() + "\n")
    path.with_suffix(".json").write_text(json.dumps(numbers, indent=1) + "\n")
    return path


@contextlib.contextmanager
def machine_lock(path: str | None) -> Iterator[None]:
    """Hold a lock file, for machines on which several people measure."""
    if path is None:
        yield
        return
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
