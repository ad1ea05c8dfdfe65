"""Conditions under which Ray's private names are used, and the log message if they are not."""

from __future__ import annotations

import inspect
import logging

import pytest

pytest.importorskip("ray")
import ray

from raydec.ray_runtime import fast_start, session

PARTS = tuple(fast_start.NAMES)
is_tested_release = ray.__version__.startswith(tuple(f"{r}." for r in fast_start.TESTED_RELEASES))


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(fast_start.VARIABLE, raising=False)
    monkeypatch.setattr(fast_start, "is_usable", fast_start.is_usable.__wrapped__)


@pytest.mark.skipif(not is_tested_release, reason=f"Ray {ray.__version__} is not a tested release")
@pytest.mark.parametrize("part", PARTS)
def test_a_tested_release_has_every_name(part: fast_start.Part) -> None:
    assert fast_start.problem_with(part) is None


@pytest.mark.parametrize("part", PARTS)
def test_it_can_be_turned_off(part: fast_start.Part, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fast_start.VARIABLE, "0")
    assert fast_start.problem_with(part) == "RAYDEC_FAST_START=0"


@pytest.mark.parametrize("version", ["2.59.0", "2.61.0", "2.6.0", "3.0.0.dev0"])
def test_another_release_is_not_trusted(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "__version__", version)
    assert f"Ray {version} is not among the tested releases" in str(fast_start.problem_with("train"))


@pytest.mark.parametrize("name", [name for part in PARTS for name in fast_start.NAMES[part]])
def test_a_name_that_is_gone_or_takes_something_else_is_noticed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = next(part for part in PARTS if name in fast_start.NAMES[part])
    parameters = fast_start.NAMES[part][name]
    monkeypatch.setattr(ray, "__version__", f"{fast_start.TESTED_RELEASES[0]}.0")
    module, _, attribute = name.partition(":")
    for other in (f"{module}:{attribute}_", f"{module}_:{attribute}"):
        monkeypatch.setattr(fast_start, "NAMES", {part: {other: parameters}})
        assert fast_start.problem_with(part) == f"{other} differs from the tested releases"
    monkeypatch.setattr(fast_start, "NAMES", {part: {name: "self something_else"}})
    assert fast_start.problem_with(part) == f"{name} differs from the tested releases"


def test_why_not_is_one_line_for_those_who_ask(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(fast_start.VARIABLE, "0")
    with caplog.at_level(logging.INFO, logger="raydec"):
        assert not fast_start.is_usable("node")
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage() == (
        "using only the public API of Ray (node), which takes seconds longer: RAYDEC_FAST_START=0"
    )


def test_without_it_no_nodes_are_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fast_start.VARIABLE, "0")
    assert session.promised_nodes() == []


def test_the_door_itself_needs_no_ray() -> None:
    """The check of the names is a separate module, so that a missing name cannot break an import."""
    lines = inspect.getsource(fast_start).splitlines()
    assert not [line for line in lines if line.startswith(("import ray", "from ray."))]
