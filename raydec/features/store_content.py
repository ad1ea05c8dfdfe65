"""The content of ``store.json``: statistics of frames and labels, counts, the corpus's identity, warnings.

Everything is computed from the shard results in order, so no number depends on which process wrote a shard.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raydec.config import ATTRIBUTES
from raydec.corpus.segments import Segment
from raydec.corpus.table import RATING_FIELDS, Corpus, labeled_mask, name_some, segments
from raydec.features.frame_moments import FrameMoments
from raydec.features.front_end import FrontEnd
from raydec.features.shards import ROLES, ShardPlan, ShardResult
from raydec.features.store import SCHEMA_VERSION


def store_content(
    corpus: Corpus,
    plans: Sequence[ShardPlan],
    front_end: FrontEnd,
    results: Sequence[ShardResult],
    batch: pa.RecordBatch,
) -> dict[str, Any]:
    """The content of ``store.json``, except the checksum of the utterance table.

    Args:
        corpus: the corpus.
        plans: all shards.
        front_end: the front end of the frames.
        results: the result of each shard.
        batch: the stored utterance table.
    """
    table = pa.Table.from_batches([batch])
    normalization = _normalization(results, front_end)
    return {
        "schema_version": SCHEMA_VERSION,
        "corpus": corpus_entry(corpus, plans),
        "front_end": front_end.name,
        "features": front_end.to_dict(),
        **front_end.whereabouts(),
        "normalization": normalization,
        "labels": _label_stats(table),
        "counts": {
            "utterances": table.num_rows,
            "frames": sum(result.num_frames for result in results),
            "skipped": len(corpus.skipped) + sum(len(result.skipped) for result in results),
            "splits": _split_counts(table),
            **_rating_counts(table, corpus.num_annotators),
        },
        "notices": [
            *corpus.warnings,
            *_normalization_notices(table, normalization["frames_of"]),
            *_leak_notices(table),
            *_validation_notices(table),
        ],
        "shards": [
            {
                "file": plan.frames_file,
                "num_frames": result.num_frames,
                "data_offset": result.data_offset,
                "sha256": result.sha256,
            }
            for plan, result in zip(plans, results, strict=True)
        ],
    }


def _normalization(results: Sequence[ShardResult], front_end: FrontEnd) -> dict[str, Any]:
    """Statistics of the labeled training frames; without these, of the unlabeled frames; else of all."""
    of_role = {role: FrameMoments.empty(front_end.scales, front_end.width) for role in ROLES}
    for result in results:
        for role in ROLES:
            of_role[role] = of_role[role].merge(result.moments[role])
    learnable = ((role, of_role[role]) for role in ("labeled_train", "unlabeled") if of_role[role].count)
    source, moments = next(learnable, ("all", of_role["held_out"]))
    entry: dict[str, Any] = {"frames_of": source, "num_frames": moments.count}
    for scale in front_end.scales:
        mean, std = moments.mean_std(scale)
        entry[scale] = {"mean": mean.tolist(), "std": std.tolist()}
    return entry


def _normalization_notices(table: pa.Table, source: str) -> list[str]:
    if source == "labeled_train":
        return []
    labeled = pc.unique(table.filter(labeled_mask(table))["split"]).to_pylist()
    if labeled and source == "all":
        return [
            f"no utterance of split train is labeled; labeled splits are {', '.join(sorted(labeled))}: "
            "choose those to train on with data.train_split"
        ]
    whose = "unlabeled utterances" if source == "unlabeled" else "all utterances, held-out ones included"
    return [f"no labeled training utterance is usable, so features are normalised by statistics of {whose}"]


def _label_stats(table: pa.Table) -> dict[str, dict[str, int | float]]:
    train = table.filter(pc.equal(table["split"], "train"))
    stats: dict[str, dict[str, int | float]] = {}
    for attribute in ATTRIBUTES:
        values = train[attribute].drop_null().to_numpy()
        if len(values):
            stats[attribute] = {
                "mean": float(np.mean(values)),
                "std": float(np.std(values)),
                "count": len(values),
            }
    return stats


def _split_counts(table: pa.Table) -> dict[str, dict[str, int | float]]:
    labeled = labeled_mask(table)
    counts: dict[str, dict[str, int | float]] = {}
    for split in pc.unique(table["split"]).to_pylist():
        of_split = pc.equal(table["split"], split)
        part = table.filter(of_split)
        counts[split] = {
            "utterances": part.num_rows,
            "labeled": pc.sum(pc.and_(of_split, labeled)).as_py(),
            "frames": pc.sum(part["num_frames"]).as_py(),
            "duration_s": math.fsum(part["duration_s"].to_pylist()),
        }
    return counts


def _rating_counts(table: pa.Table, num_annotators: int) -> dict[str, dict[str, int]]:
    """Counts of annotators' ratings; empty without ratings.

    A rating of several attributes counts once.
    """
    columns = [table[field.name] for field in RATING_FIELDS if field.name in table.column_names]
    if not columns:
        return {}
    lengths = np.max([pc.fill_null(pc.list_value_length(column), 0).to_numpy() for column in columns], axis=0)
    return {
        "ratings": {
            "utterances": int((lengths > 0).sum()),
            "ratings": int(lengths.sum()),
            "annotators": num_annotators,
        }
    }


def _validation_notices(table: pa.Table) -> list[str]:
    """Attributes with a single validation label: no correlation can be computed from it."""
    validation = table.filter(pc.equal(table["split"], "validation"))
    lone = [name for name in ATTRIBUTES if len(validation[name].drop_null()) == 1]
    if not lone:
        return []
    return [
        f"only one usable validation utterance is labeled for {', '.join(lone)}: its CCC is undefined and "
        "reported as 0, so training cannot choose the best epoch; add validation utterances"
    ]


def _leak_notices(table: pa.Table) -> list[str]:
    """Recordings, or segments of one, that are byte-identical to one of another split."""
    first_of: dict[tuple[str, Segment], tuple[str, str]] = {}
    leaks = []
    columns = (table[name].to_pylist() for name in ("utterance_id", "split", "sha256"))
    for utterance_id, split, sha256, segment in zip(*columns, segments(table), strict=True):
        twin, twin_split = first_of.setdefault((sha256, segment), (utterance_id, split))
        if twin_split != split:
            leaks.append(f"{utterance_id} ({split}) = {twin} ({twin_split})")
    if not leaks:
        return []
    verb = "recording is" if len(leaks) == 1 else "recordings are"
    return [
        f"{len(leaks)} {verb} byte-identical to one of another split, so scores may be too high: "
        f"{name_some(leaks)}"
    ]


def corpus_entry(corpus: Corpus, plans: Sequence[ShardPlan]) -> dict[str, Any]:
    """Identity of a corpus: the content of its table, and size and modification time of its audio files."""
    files = [(u.size, u.modified_ns) for plan in plans for u in plan.utterances]
    # A corpus without segments keeps the identity from versions that did not support segments.
    unsaid = {"path"} | {
        name for name in ("start_s", "end_s") if not pc.any(pc.is_valid(corpus.table[name])).as_py()
    }
    ratings = [field.name for field in RATING_FIELDS if field.name in corpus.table.column_names]
    unsaid |= set(ratings)
    labels = [corpus.table[name].to_pylist() for name in corpus.table.column_names if name not in unsaid]
    entry = {
        "name": corpus.name,
        "format": corpus.format,
        "synthetic": corpus.synthetic,
        "label_range": None if corpus.label_range is None else list(corpus.label_range),
        "num_utterances": corpus.table.num_rows,
        "paths_sha256": _sha256_of(corpus.table["path"].to_pylist()),
        "labels_sha256": _sha256_of(labels),
        "files_sha256": _sha256_of(files),
    }
    if ratings:
        entry["ratings_sha256"] = _sha256_of([corpus.table[name].to_pylist() for name in ratings])
    return entry


def _sha256_of(values: Any) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def corpus_differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Descriptions of the differences between two corpus entries; empty if they are the same corpus.

    A store without annotators' ratings remains a store of its corpus, see :func:`lacks_ratings`.
    """
    if old["num_utterances"] != new["num_utterances"]:
        return [f"it had {old['num_utterances']} usable utterances, now it has {new['num_utterances']}"]
    meanings = {
        "name": "the corpus has another name",
        "format": "it was read as another format",
        "synthetic": "its mark as synthetic has changed",
        "paths_sha256": "its audio files are elsewhere or have other names",
        "labels_sha256": "its labels, speakers or splits have changed",
        "files_sha256": "its audio files have changed",
    }
    if "ratings_sha256" in old:
        meanings["ratings_sha256"] = "its annotators' ratings have changed"
    return [meaning for key, meaning in meanings.items() if old.get(key) != new.get(key)]


def lacks_ratings(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether a store lacks the ratings that its corpus has, because an older version made it."""
    return "ratings_sha256" in new and "ratings_sha256" not in old
