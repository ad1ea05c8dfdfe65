"""A faster start of Ray that uses its private names; no other module of raydec uses any.

They save 4 of the 10 seconds from the start of a run to its first step, and 3% of a core during training.
They are used only with releases of Ray with which they were tested, and only if every name has the expected
signature. Otherwise, or with ``RAYDEC_FAST_START=0``, the public API does the same work.
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
# Releases, by major and minor version, with which the Ray tests have passed.
TESTED_RELEASES = ("2.60",)

Part = Literal["node", "train"]

_TRAIN = "ray.train.v2"
_TRAINER = f"{_TRAIN}.api.data_parallel_trainer:DataParallelTrainer"
_EXECUTION = f"{_TRAIN}._internal.execution"
# Each name that is used, as ``module:attribute``, with its parameters; None if it is not called.
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
    """Whether the private names of a part may be used in this process; if not, the reason is logged once.

    Args:
        part: ``node``: starting a local Ray and querying its size; ``train``: Ray Train.
    """
    problem = problem_with(part)
    if problem is not None:
        logger.info("using only the public API of Ray (%s), which takes seconds longer: %s", part, problem)
    return problem is None


def problem_with(part: Part) -> str | None:
    """Why the private names of a part cannot be used; None if they can."""
    import ray

    if os.environ.get(VARIABLE, "1").strip().lower() in ("0", "false", "no"):
        return f"{VARIABLE}={os.environ[VARIABLE]}"
    if ".".join(ray.__version__.split(".")[:2]) not in TESTED_RELEASES:
        return f"Ray {ray.__version__} is not among the tested releases ({', '.join(TESTED_RELEASES)})"
    for name, parameters in NAMES[part].items():
        found = _parameters(name, is_called=parameters is not None)
        if found != parameters:
            return f"{name} differs from the tested releases"
    return None


def _parameters(name: str, *, is_called: bool) -> str | None:
    """Names of the parameters; ``?`` if the name does not exist."""
    module, _, attribute = name.partition(":")
    try:
        found = operator.attrgetter(attribute)(importlib.import_module(module))
        return " ".join(inspect.signature(found).parameters) if is_called else None
    except (ImportError, AttributeError, TypeError, ValueError):
        return "?"
