"""Interpretation of command lines and config files."""

from pathlib import Path

import pytest

from raydec.config import Config, changed_keys, load_config
from raydec.console.arguments import Parser
from raydec.console.command_line import parse_config_arguments
from raydec.console.terminal import run_entry_point
from raydec.errors import UserError
from raydec.train import main as train_main


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def read(*arguments: str) -> Config:
    return parse_config_arguments(arguments, verb="train", summary="")


def in_yaml(folder: Path, text: str, *overrides: str) -> Config:
    (folder / "settings.yaml").write_text(text)
    return read(str(folder / "settings.yaml"), *overrides)


def test_home_is_written_out_in_files_overrides_variables_and_options(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = in_yaml(home, "output_dir: ~/runs\ndata: {store: ~}\n", "data.store=~/stores/x")
    assert (config.output_dir, config.data.store) == (f"{home}/runs", f"{home}/stores/x")
    monkeypatch.setenv("RAYDEC_STORAGE", "~/shared")
    assert read().storage_path == f"{home}/shared"
    parser = Parser()
    parser.add_argument("--out", type=Path)
    parser.add_argument("paths", nargs="*")
    options = parser.parse_args(["--out=~/scores.csv", "~/a", "b~"])
    assert (options.out, options.paths) == (home / "scores.csv", [f"{home}/a", "b~"])
    assert read("~/settings.yaml").output_dir == f"{home}/runs"


@pytest.mark.parametrize("value", ["s3://bucket/~/runs", "runs~1", "a/~b"])
def test_what_only_looks_like_home_is_left_alone(home: Path, value: str) -> None:
    assert read(f"storage_path={value}").storage_path == value


def test_the_home_of_nobody_is_refused() -> None:
    with pytest.raises(UserError, match=r"output_dir='~nobody-here/x': ~nobody-here has no home folder"):
        read("output_dir=~nobody-here/x")


@pytest.mark.parametrize("override", ["data.store=", "name=", "ray.address= ", "training.epochs="])
def test_a_key_given_without_a_value_is_refused(override: str) -> None:
    with pytest.raises(UserError, match=rf"{override.split('=')[0]} is given without a value .* =null|=null"):
        read(override)


@pytest.mark.parametrize(
    "text, message",
    [
        ("data:\n  store:\n", "line 2: data.store has no value"),
        ("name: ''\n", "line 1: name has no value"),
        ("seed: 1\ndata:\n", "line 2: data has no value"),
        ("data: {store: '${oc.env:RAYDEC_TEST_EMPTY}'}\n", "data.store is empty"),
        (
            "data: {store: '${oc.env:RAYDEC_TEST_UNSET}'}\n",
            "data.store: .*RAYDEC_TEST_UNSET",
        ),
        ("name: ${nam}\n", "name: Interpolation key 'nam' not found"),
    ],
)
def test_an_empty_value_in_a_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setenv("RAYDEC_TEST_EMPTY", "")
    with pytest.raises(UserError, match=message):
        in_yaml(tmp_path, text)


def test_null_leaves_a_key_unset_and_an_empty_file_is_no_mistake(tmp_path: Path) -> None:
    assert in_yaml(tmp_path, "name: null\ndata: {store: ~}\n").name is None
    assert in_yaml(tmp_path, "# nothing but a comment\n") == load_config()
    assert read("name=null").name is None


@pytest.mark.parametrize("arguments", [["", "store"], ["model", ""], ["model", "store", "--out="]])
def test_an_empty_argument_is_refused(arguments: list[str]) -> None:
    parser = Parser()
    parser.add_argument("model", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--out", type=Path)
    with pytest.raises(UserError, match="an argument is empty"):
        parser.parse_args(arguments)


@pytest.mark.parametrize(
    "written, name",
    [("42", "42"), ("007", "007"), ("no", "no"), ("1e3", "1e3"), ("'x'", "x"), ("2026-11-25", "2026-11-25")],
)
def test_a_name_that_yaml_takes_for_something_else_is_taken_as_it_stands(
    tmp_path: Path, written: str, name: str
) -> None:
    assert read(f"name={written}").name == name
    assert in_yaml(tmp_path, f"name: {written}\n").name == name
    assert in_yaml(tmp_path, "data: {store: " + written + "}\n").data.store == name


def test_the_last_of_several_values_of_a_key_counts() -> None:
    assert read("name=007", "name=null").name is None
    assert read("name=null", "name=007").name == "007"
    assert read("data.store=1", "data.store=x").data.store == "x"


def test_a_single_word_is_a_list_of_one(tmp_path: Path) -> None:
    assert read("data.attributes=arousal").data.attributes == ("arousal",)
    assert read("data.attributes=valence,arousal").data.attributes == ("valence", "arousal")
    assert read("tracking.services=wandb").tracking.services == ("wandb",)
    assert in_yaml(tmp_path, "data: {attributes: dominance}\n").data.attributes == ("dominance",)


@pytest.mark.parametrize(
    "override, message",
    [
        ("name=[a]", r"name=\['a'\]: must be text; .* in quotes"),
        ("data.attributes=joy", "data.attributes.0='joy': input should be 'arousal'"),
    ],
)
def test_what_can_not_be_meant_is_refused(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(override)


def test_a_config_file_after_an_override_is_put_first(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("seed: 1\n")
    with pytest.raises(UserError, match=rf"must come first: python -m raydec.train {file} name=a seed=2"):
        read("name=a", str(file), "seed=2")
    with pytest.raises(UserError, match="two config files are given"):
        read(str(file), str(file))
    with pytest.raises(UserError, match=r"absent\.yaml comes after an override"):
        read("seed=2", "absent.yaml")
    with pytest.raises(UserError, match="'seed' is neither a config file nor an override"):
        read("seed")


def test_the_demo_corpus_is_named_in_the_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise UserError("far enough")

    monkeypatch.setattr("raydec.demo.write_demo_corpus", stop)
    assert run_entry_point(train_main, [f"output_dir={tmp_path}"]) == 2
    assert "synthetic demo corpus" in capsys.readouterr().out.splitlines()[0]
    assert run_entry_point(train_main, [f"output_dir={tmp_path}", "data.store=null"]) == 2
    assert "synthetic demo corpus" in capsys.readouterr().out.splitlines()[0]


def test_help_shows_what_the_bare_command_uses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read("--help")
    said = {line.split("=")[0].strip(): line for line in capsys.readouterr().out.splitlines() if "=" in line}
    bare, with_store = load_config(), load_config(None, ["data.store=x"])
    for key in changed_keys(bare, with_store):
        if key != "data.store":
            section, name = key.split(".")
            used = getattr(getattr(bare, section), name)
            assert f"demo corpus: {used}  [" in said[key], key
    assert "demo corpus" not in said["training.precision"]
