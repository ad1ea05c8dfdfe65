"""Models on the Hub, with a fake client: calls of the client, and messages to the user."""

from __future__ import annotations

import shutil
from fnmatch import fnmatch
from pathlib import Path

import pytest
import soundfile
from model_support import small_model, speech

import raydec
from raydec import cli
from raydec.errors import UserError
from raydec.model import hub
from raydec.model.directory import save_model


class FakeHub:
    """Repositories as folders; like the real client, it returns only requested files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.created: list[tuple[str, bool]] = []

    def snapshot_download(self, repo_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        source = self.folder / repo_id / (revision or "main")
        if not source.is_dir():
            raise RuntimeError(f"404 Client Error.\n\nRepository Not Found: {repo_id}.")
        return str(copy(source, self.folder / "cache" / repo_id, allow_patterns))

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.created.append((repo_id, private))

    def upload_folder(
        self,
        *,
        repo_id: str,
        folder_path: str,
        revision: str | None,
        allow_patterns: list[str],
        commit_message: str,
    ) -> None:
        if repo_id.startswith("somebody-else/"):
            raise PermissionError("403 Forbidden: no write access.")
        copy(Path(folder_path), self.folder / repo_id / (revision or "main"), allow_patterns)


def copy(source: Path, target: Path, allow_patterns: list[str]) -> Path:
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
            shutil.copy(file, target / file.name)
    return target


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The Hub, and a model directory in the working directory with files that must not be uploaded."""
    client = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(hub, "open_hub", lambda: client)
    monkeypatch.chdir(tmp_path)
    save_model(small_model(), "model")
    (tmp_path / "model" / "code.py").write_text("raise SystemExit")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"a pickle")
    soundfile.write("a.wav", speech(), 16_000)
    return client


def test_a_model_goes_up_and_comes_down_without_what_could_run_code(
    fake: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", "model", "--hub", "hf:me/emotions", "--private"]) == 0
    assert capsys.readouterr().out == "uploaded model to https://huggingface.co/me/emotions\n"
    assert fake.created == [("me/emotions", True)]
    published = fake.folder / "me" / "emotions" / "main"
    assert {file.name for file in published.iterdir()} == set(hub._FILES)
    (published / "evil.py").write_text("raise SystemExit")
    (published / "pytorch_model.bin").write_bytes(b"a pickle")
    expected = raydec.load("model").predict("a.wav")
    assert raydec.load("hf:me/emotions").predict("a.wav") == expected
    cached = fake.folder / "cache" / "me" / "emotions"
    assert {file.name for file in cached.iterdir()} == set(hub._FILES)


def test_predict_takes_models_by_their_name_and_revision(fake: FakeHub) -> None:
    hub.upload_model("model", "hf:me/emotions@v1.0")
    assert cli.main(["predict", "hf:me/emotions@v1.0", "a.wav", "--out", "hub.csv"]) == 0
    assert cli.main(["predict", "model", "a.wav", "--out", "local.csv"]) == 0
    assert Path("hub.csv").read_bytes() == Path("local.csv").read_bytes()
    # The same model under another name resumes the same table.
    assert cli.main(["predict", "model", "a.wav", "--out", "hub.csv"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "hf:me/none", "a.wav", "--out", "o.csv"], "cannot fetch hf:me/none: 404 Client Error"),
        (["predict", "hf:me", "a.wav", "--out", "o.csv"], "'hf:me' does not name a model on the Hub"),
        (["evaluate", "hf:../../etc/x", "store"], "does not name a model on the Hub"),
        (["evaluate", "model", "store", "--against", "hf:me/none"], "cannot fetch hf:me/none"),
        (["export", "model", "--hub", "me/emotions"], "write hf:owner/name"),
        (
            ["export", "model", "--hub", "hf:somebody-else/x"],
            "403 Forbidden: no write access; try hf auth login",
        ),
        (["export", "a.wav", "--hub", "hf:me/x"], "a.wav is not a model directory"),
        (["export", "model"], "give a file with --onnx FILE, or a model name with --hub"),
    ],
)
def test_mistakes_are_one_line(
    fake: FakeHub, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    complaint = capsys.readouterr().err
    assert message in complaint and complaint.count("\n") == 1
    assert not (fake.folder / "me").exists()


def test_a_missing_extra_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'pip install "raydec\[hf\]"'):
        raydec.load("hf:me/emotions")


def test_the_real_client_has_what_is_asked_of_it() -> None:
    real = pytest.importorskip("huggingface_hub", reason="huggingface_hub is in the hf extra")
    import inspect

    for name in ("snapshot_download", "create_repo", "upload_folder"):
        asked = inspect.signature(getattr(FakeHub, name)).parameters
        assert set(asked) <= set(inspect.signature(getattr(real.HfApi, name)).parameters), name
    assert type(hub.open_hub()).__name__ == "HfApi"
