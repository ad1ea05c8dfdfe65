"""Settings that refer to something else, in YAML and on the command line: resolved, or one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from raydec.config import load_config
from raydec.console.command_line import parse_config_arguments
from raydec.console.terminal import run_entry_point

CASES = {
    "${oc.env:RAYDEC_UNSET}": "Environment variable 'RAYDEC_UNSET' not found; set the variable, or give a",
    "runs-${oc.env:RAYDEC_UNSET}-1": "Environment variable 'RAYDEC_UNSET' not found",
    "${nowhere.key}": "Interpolation key 'nowhere.key' not found",
    "${magic:x}": "Unsupported interpolation type magic",
}


@pytest.mark.parametrize("value", CASES)
@pytest.mark.parametrize("where", ["yaml", "command line"])
def test_what_cannot_be_resolved_is_one_line_that_names_the_key(
    value: str,
    where: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("RAYDEC_UNSET", raising=False)
    (tmp_path / "run.yaml").write_text(f"data:\n  store: {value}\n" if where == "yaml" else "seed: 1\n")
    overrides = [f"data.store={value}"] if where == "command line" else []

    def main(arguments: Sequence[str]) -> None:
        parse_config_arguments(arguments, verb="train", summary="")

    assert run_entry_point(main, [str(tmp_path / "run.yaml"), *overrides]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"error: data.store: {CASES[value]}") and complaint.count("\n") == 1


def test_what_can_be_resolved_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYDEC_STORE_HERE", "stores/mine")
    overrides = ["data.store=${oc.env:RAYDEC_STORE_HERE}", "name=${oc.env:RAYDEC_UNSET,mine}"]
    config = load_config(overrides=overrides)
    assert (config.data.store, config.name) == ("stores/mine", "mine")
