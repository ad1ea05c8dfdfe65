"""The one door to Ray's insides: names that Ray does not promise to keep, for a quicker start.

They save 4 of the 10 seconds that a run takes to its first step, and 3% of a core while it trains. They are
used only with a release of Ray that they were tested with, and only where each of them is found as it was;
otherwise, or with ``RAYDEC_FAST_START=0``, the public names do the same work. No other module of raydec uses
a private name of Ray.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
import operator
import os
from collections.abc import Mapping
from typing import Literal

VARIABLE = "RAYDEC_FAST_START"
# Releases, by major and minor version, that the Ray tests have passed with.
TESTED_RELEASES = ("2.60",)

Part = Literal["node", "train"]

_TRAIN = "ray.train.v2"
_TRAINER = f"{_TRAIN}.api.data_parallel_trainer:DataParallelTrainer"
_EXECUTION = f"{_TRAIN}._internal.execution"
# The parameters of each name that is used, as ``module:attribute``; None: it is not called.
NAMES: Mapping[Part, Mapping[str, str | None]] = {
    "node": {
        "ray._private.node:Node.start_api_server": "self include_dashboard raise_on_failure",
        "ray._private.node:Node.start_monitor": "self",
        "ray._private.node:Node.start_log_monitor": "self",
        "ray._private.state:state.get_cluster_config": "",
    },
    "train": {
        f"{_TRAINER}._create_default_callbacks": "self",
        f"{_TRAINER}._initialize_and_run_controller": "self controller_init_kwargs",
        f"{_TRAINER}._register_sigint_handler": "self controller",
        f"{_EXECUTION}.failure_handling:DefaultFailurePolicy": "failure_config",
        f"{_EXECUTION}.failure_handling:DefaultFailurePolicy.make_decision": "self training_failed_error",
        f"{_EXECUTION}.failure_handling:FailureDecision.RAISE": None,
        f"{_EXECUTION}.controller:TrainController": "train_fn_ref train_run_context scaling_policy "
        "failure_policy callbacks validation_config",
        f"{_EXECUTION}.controller:TrainController.run": "self",
        f"{_EXECUTION}.controller:TrainController.abort": "self",
        f"{_EXECUTION}.controller:TrainController.get_worker_group": "self",
        f"{_EXECUTION}.controller:TrainController.get_result": "self",
        f"{_EXECUTION}.controller:TrainController.worker_group_cls": "train_run_context worker_group_context "
        "callbacks",
        f"{_EXECUTION}.scaling_policy:FixedScalingPolicy": "scaling_config",
        f"{_EXECUTION}.scaling_policy:FixedScalingPolicy.after_controller_start": "self train_run_context",
        f"{_EXECUTION}.scaling_policy:FixedScalingPolicy._maybe_send_resource_request": "self",
        f"{_EXECUTION}.worker_group:WorkerGroup._init_train_context_on_workers": "self workers sync_actor "
        "train_context_args",
        f"{_EXECUTION}.worker_group:WorkerGroup._decorate_worker_log_file_paths": "workers",
        f"{_EXECUTION}.worker_group:WorkerGroup.abort": "self",
        f"{_EXECUTION}.worker_group.worker:RayTrainWorker.init_train_context": "self train_run_context "
        "distributed_context synchronization_actor storage_context worker_callbacks controller_actor "
        "dataset_shard_provider checkpoint has_validation_fn current_report_index",
        "ray.data._internal.cluster_autoscaler:"
        "default_autoscaling_coordinator.get_or_create_autoscaling_coordinator": "",
    },
}
logger = logging.getLogger(__name__)


@functools.cache
def is_usable(part: Part) -> bool:
    """Whether the private names of a part may be used in this process; if not, says why at ``-v``, once.

    Args:
        part: ``node``: starting a local Ray and asking for its size; ``train``: Ray Train.
    """
    problem = problem_with(part)
    if problem is not None:
        logger.info(
            "Ray is used by its public names alone (%s), which takes seconds longer: %s", part, problem
        )
    return problem is None


def problem_with(part: Part) -> str | None:
    """Why the private names of a part cannot be used; None when they can."""
    import ray

    if os.environ.get(VARIABLE, "1").strip().lower() in ("0", "false", "no"):
        return f"{VARIABLE}={os.environ[VARIABLE]}"
    if ".".join(ray.__version__.split(".")[:2]) not in TESTED_RELEASES:
        return f"Ray {ray.__version__} is not among the tested releases ({', '.join(TESTED_RELEASES)})"
    for name, parameters in NAMES[part].items():
        found = _parameters(name, is_called=parameters is not None)
        if found != parameters:
            return f"{name} is not what it was in a tested release"
    return None


def _parameters(name: str, *, is_called: bool) -> str | None:
    """Names of the parameters; something that no signature is where there is no such name."""
    module, _, attribute = name.partition(":")
    try:
        found = operator.attrgetter(attribute)(importlib.import_module(module))
        return " ".join(inspect.signature(found).parameters) if is_called else None
    except (ImportError, AttributeError, TypeError, ValueError):
        return "?"
