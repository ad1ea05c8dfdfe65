"""Preparing on Ray: the same bytes as in one process, readable errors, nothing lost after Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from corpus_support import many, write_corpus
from encoder_support import tiny_encoder

from raydec.errors import UserError
from raydec.features.encoder_front_end import encoder_front_end
from raydec.preparation import prepare_store
from raydec.ray_runtime.prepare import _kept_interrupts, run_shards
from raydec.ray_runtime.session import start_ray

pytestmark = pytest.mark.ray
ray = pytest.importorskip("ray")
# Workers cannot import a test module.
ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def local_ray() -> Iterator[None]:
    start_ray("local", num_cpus=2, object_store_gib=0.1)
    yield
    ray.shutdown()


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.usefixtures("local_ray")
def test_the_number_of_workers_never_changes_a_byte(tmp_path: Path) -> None:
    utterances = [*many(40), *many(20, "validation", "v"), *many(20, "unlabeled", "x")]
    corpus = write_corpus(tmp_path / "audio", utterances)
    (tmp_path / "audio" / "u004.wav").write_bytes(b"garbage")
    for num_workers in (0, 1, 2, None):
        prepare_store(
            corpus, tmp_path / f"{num_workers}", num_workers=num_workers, address="local", quiet=True
        )
    alone = content(tmp_path / "0")
    assert sum(name.startswith("frames-") for name in alone) == 5
    for num_workers in (1, 2, None):
        assert content(tmp_path / f"{num_workers}") == alone


def test_a_driver_needs_neither_torch_nor_scipy(tmp_path: Path) -> None:
    """They take two seconds of CPU time to import, and workers import what they need."""
    write_corpus(tmp_path / "audio", many(2))
    code = (
        "import sys\n"
        "from raydec.prepare import main\n"
        "main(sys.argv[1:])\n"
        "print([name for name in ('torch', 'scipy') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "audio"), str(tmp_path / "store"), "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.usefixtures("local_ray")
def test_hidden_states_are_the_same_on_ray(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    encoder = tiny_encoder(tmp_path / "encoder", "wavlm")
    corpus = write_corpus(tmp_path / "audio", [*many(20), *many(16, "validation", "v")])
    front_end = encoder_front_end(str(encoder), "all")
    for num_workers in (0, 2):
        prepare_store(
            corpus,
            tmp_path / f"{num_workers}",
            num_workers=num_workers,
            address="local",
            quiet=True,
            front_end=front_end,
        )
    alone = content(tmp_path / "0")
    assert sum(name.startswith("frames-") and name.endswith(".arrow") for name in alone) > 2
    assert content(tmp_path / "2") == alone


@pytest.mark.usefixtures("local_ray")
def test_results_arrive_and_no_more_run_than_there_are_workers(tmp_path: Path) -> None:
    results: list[int] = []
    run_shards(partial(count_running, folder=tmp_path), range(12), num_workers=2, on_done=results.append)
    assert len(results) == 12
    assert 1 <= max(results) <= 2


def count_running(item: int, folder: Path) -> int:
    mark = folder / f"running-{item}"
    mark.touch()
    time.sleep(0.05)
    running = len(list(folder.glob("running-*")))
    mark.unlink()
    return running


def fail(item: int, folder: Path) -> int:
    if item == 3:
        raise UserError("item 3 is bad; mend it")
    time.sleep(0.05)
    (folder / f"{item}").touch()
    return item


def die(item: int) -> int:
    os._exit(1)


@pytest.mark.usefixtures("local_ray")
def test_a_users_mistake_in_a_worker_arrives_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        run_shards(partial(fail, folder=tmp_path), range(1000), num_workers=2, on_done=lambda result: None)
    assert str(caught.value) == "item 3 is bad; mend it"
    assert len(list(tmp_path.iterdir())) < 20


@pytest.mark.usefixtures("local_ray")
def test_a_worker_that_dies_again_and_again_is_reported() -> None:
    with pytest.raises(UserError, match="a worker and its replacements died"):
        run_shards(die, [1], num_workers=1, on_done=lambda result: None)


def test_an_interrupt_keeps_what_is_finished(tmp_path: Path) -> None:
    # In a separate process, so that a late interrupt does not end the tests.
    write_corpus(tmp_path / "audio", many(320))
    num_shards = 20  # of 16 utterances
    store = tmp_path / "store"
    command = [sys.executable, "-m", "raydec.prepare", tmp_path / "audio", store, "--workers", "1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and not list(store.glob("frames-*.json")):
        time.sleep(0.01)
    # Once to the whole process group, as a terminal does.
    os.killpg(process.pid, signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    assert "interrupted; finished work is kept" in messages
    assert "Traceback" not in messages
    finished = {path: path.stat().st_mtime_ns for path in store.glob("frames-*.arrow")}
    assert 1 <= len(finished) < num_shards
    assert not (store / "store.json").exists()
    subprocess.run(command, check=True, capture_output=True)
    assert len(list(store.glob("frames-*.arrow"))) == num_shards
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


@pytest.mark.parametrize("swallowed", [False, True])
def test_an_interrupt_is_raised_even_if_someone_swallows_it(swallowed: bool) -> None:
    # Ray Tune and Ray Data install handlers that do not raise.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), _kept_interrupts() as check_interrupted:
            check_interrupted()
            with contextlib.suppress(KeyboardInterrupt) if swallowed else contextlib.nullcontext():
                signal.raise_signal(signal.SIGINT)
            assert swallowed
            check_interrupted()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "127.0.0.1:port"])
def test_no_cluster_is_a_users_error_at_once(address: str) -> None:
    started_s = time.monotonic()
    message = subprocess_error(address.format(port=free_port()))
    assert "Ray cluster" in message
    assert time.monotonic() - started_s < 20  # most of it importing Ray


def test_something_else_than_ray_at_the_address_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        message = subprocess_error(f"127.0.0.1:{port}")
    assert f"no Ray cluster at 127.0.0.1:{port}: the server at this address is not Ray" in message


def subprocess_error(address: str) -> str:
    """The only message of start_ray in a separate process."""
    code = (
        "import sys, time, ray\n"
        "from raydec.errors import UserError\n"
        "from raydec.ray_runtime.session import start_ray\n"
        "start_s = time.monotonic()\n"
        "try:\n    start_ray(sys.argv[1])\n"
        "except UserError as error:\n    print(error)\n"
        "assert time.monotonic() - start_s < 10"
    )
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", code, address], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stderr == ""
    return done.stdout


def test_a_busy_machine_gets_a_second_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[str] = []

    def slow_once(address: str, **_: object) -> None:
        attempts.append(address)
        if len(attempts) == 1:
            raise Exception("The current node timed out during startup. This could happen because")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", slow_once)
    start_ray("local")
    assert attempts == ["local", "local"]


@pytest.mark.usefixtures("local_ray")
def test_starting_twice_changes_nothing() -> None:
    node = ray.get_runtime_context().get_node_id()
    start_ray("127.0.0.1:1")
    assert ray.get_runtime_context().get_node_id() == node
