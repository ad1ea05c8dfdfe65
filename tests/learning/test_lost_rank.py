"""A collective without one of its ranks times out, and the error names the rank."""

import socket
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from raydec.learning.worker import DistributedWorker, LocalWorker, LostRankError


def wait_for_a_sleeper(rank: int, folder: str, port: int) -> None:
    rendezvous = dist.TCPStore("127.0.0.1", port, 2, is_master=rank == 0)
    dist.init_process_group("gloo", store=rendezvous, rank=rank, world_size=2, timeout=timedelta(seconds=2))
    worker = DistributedWorker(torch.device("cpu"), f"192.0.2.{rank}")
    members = worker.members()
    if rank == 1:
        while not (Path(folder) / "said").exists():
            time.sleep(0.1)
        return
    try:
        worker.all_sum(torch.ones(3))
        said = "nothing"
    except LostRankError as error:
        said = str(error)
    assert members[1].address == "192.0.2.1"
    partial = Path(folder) / "saying"
    partial.write_text(f"{members[1].pid}\n{said}")
    partial.rename(Path(folder) / "said")


@pytest.mark.timeout(120)
def test_who_did_not_come_is_named(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(wait_for_a_sleeper, (str(tmp_path), port), nprocs=2)
    pid, said = (tmp_path / "said").read_text().split("\n", 1)
    assert said.startswith(f"rank 0 waited in vain for rank 1 (process {pid} on 192.0.2.1): ")


def test_a_world_of_one_has_one_member() -> None:
    (member,) = LocalWorker().members()
    assert member.role == "rank 0"
