"""One network for three attributes against three networks: ``python -m benchmarks.joint WORK_DIR``.

The default recipe and schedule on a store of the synthetic demo corpus, without Ray; cost is the time of all
epochs, scores are those of the test split under the best epoch's weights, over several seeds.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.epoch import ENVIRONMENT, make_demo_store, train_command
from benchmarks.report import argument_parser, machine, machine_lock, shown, spread, table, write_results

ATTRIBUTES = ("arousal", "dominance", "valence")
SETTINGS = [
    "ray.num_workers=0",
    "training.recipe=modern",
    "features.scale=log",
    "training.batch_utterances=8",
]


def trained(store: Path, work: Path, attributes: tuple[str, ...], seed: int, epochs: int) -> dict[str, Any]:
    """Seconds of all epochs, and the test CCC by attribute, of one run."""
    runs = work / "runs-joint"
    shutil.rmtree(runs, ignore_errors=True)
    command = train_command(store, runs, "joint")
    command += [*SETTINGS, f"data.attributes=[{','.join(attributes)}]", f"seed={seed}"]
    done = subprocess.run(
        [*command, f"training.epochs={epochs}"], capture_output=True, text=True, env=ENVIRONMENT
    )
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    lines = [json.loads(line) for line in (runs / "joint" / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((runs / "joint" / "summary.json").read_text())
    (split,) = [name for name in summary["ccc"] if name.startswith("test")]
    return {"epochs_s": sum(line["time/epoch_s"] for line in lines), "ccc": summary["ccc"][split]}


def main() -> None:
    """Measure, print, write."""
    parser = argument_parser(__doc__)
    parser.add_argument("work_dir", type=Path)
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--train", type=int, default=64, help="labeled utterances; as many are unlabeled")
    parser.add_argument("--lock", help="file to lock around each run, on a shared machine")
    options = parser.parse_args()
    work = options.work_dir.absolute()
    with machine_lock(options.lock):
        store = make_demo_store(work, options.train, options.train)
    jobs = [ATTRIBUTES, *((name,) for name in ATTRIBUTES)]
    samples = []
    for number, seed in enumerate(options.seeds):
        for attributes in jobs if number % 2 == 0 else reversed(jobs):
            with machine_lock(options.lock):
                result = trained(store, work, attributes, seed, options.epochs)
            samples.append({"attributes": list(attributes), "seed": seed, **result})
            print(samples[-1], flush=True)
    joint = [sample for sample in samples if len(sample["attributes"]) == 3]
    single = {name: [s for s in samples if s["attributes"] == [name]] for name in ATTRIBUTES}
    costs = [
        sum(s["epochs_s"] for name in ATTRIBUTES for s in single[name] if s["seed"] == one["seed"])
        for one in joint
    ]
    ratios = [cost / one["epochs_s"] for cost, one in zip(costs, joint, strict=True)]
    rows = [
        ["one joint run", shown(spread([s["epochs_s"] for s in joint]), 1)]
        + [shown(spread([s["ccc"][name] for s in joint]), 3) for name in ATTRIBUTES],
        ["three single runs", shown(spread(costs), 1)]
        + [shown(spread([s["ccc"][name] for s in single[name]]), 3) for name in ATTRIBUTES],
        ["three / one", shown(spread(ratios)), *("" for _ in ATTRIBUTES)],
    ]
    agreement = statistics.median(ratios)
    text = "\n".join(
        [
            f"# One joint run or three single ones, {time.strftime('%Y-%m-%d')}",
            "",
            f"`python -m benchmarks.joint WORK_DIR --epochs {options.epochs} --train {options.train}`",
            "",
            f"{machine()}. {options.train} labeled and {options.train} unlabeled synthetic utterances, "
            f"{options.epochs} epochs, seeds {options.seeds}. Median (least to greatest); test CCC. Three "
            f"single runs cost {agreement:.2f} times the joint one.",
            "",
            table(["", "all epochs, s", *ATTRIBUTES], rows),
        ]
    )
    print(text)
    print(write_results("joint", text, {"machine": machine(), "samples": samples}))


if __name__ == "__main__":
    main()
