"""Every shipped cluster file passes Ray's own schema validation, offline."""

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def validated(text: str) -> dict:
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(yaml.safe_load(text))
    validate_config(prepared)
    return prepared


def test_cluster_yaml_is_valid() -> None:
    prepared = validated((ROOT / "cluster.yaml").read_text())
    assert set(prepared["available_node_types"]) == {"head", "gpu_worker"}


@pytest.mark.parametrize(
    ("old", "new"),
    [("head_node_type: head", "head_node_type: nobody"), ("max_workers: 4\nup", "maximum_workers: 4\nup")],
)
def test_the_validation_would_notice(old: str, new: str) -> None:
    text = (ROOT / "cluster.yaml").read_text()
    assert old in text
    with pytest.raises(Exception, match=r"`head_node_type`|maximum_workers"):
        validated(text.replace(old, new, 1))


def test_the_kubernetes_job_is_the_same_cluster() -> None:
    job = yaml.safe_load((ROOT / "docs" / "kubernetes.yaml").read_text())
    cluster = job["spec"]["rayClusterSpec"]
    image = yaml.safe_load((ROOT / "cluster.yaml").read_text())["docker"]["image"]
    assert image.startswith(f"rayproject/ray:{cluster['rayVersion']}-")
    assert image in (ROOT / "docs" / "kubernetes.yaml").read_text()
    assert cluster["authOptions"] == {"mode": "token"}
    (workers,) = cluster["workerGroupSpecs"]
    pods = [cluster["headGroupSpec"], workers]
    containers = [pod["template"]["spec"]["containers"][0] for pod in pods]
    assert [c["resources"]["limits"].get("nvidia.com/gpu") for c in containers] == [None, "1"]
    assert all(c["env"][0]["name"] == "RAYDEC_STORAGE" for c in containers)
    mounts = {mount["name"] for mount in containers[1]["volumeMounts"]}
    assert mounts == {volume["name"] for volume in workers["template"]["spec"]["volumes"]}


def test_nodes_ask_for_a_token_and_none_is_written_down() -> None:
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    assert "-e RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert "/home/ray/raydec_token" in config["file_mounts"]
