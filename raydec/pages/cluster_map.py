"""The cluster map: embeddings of chunks on a plane, coloured by cluster, label, speaker or emotion."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from raydec.features.front_end import ChunkFormat, FrontEnd
from raydec.learning.randomness import generator_for, integer_seed_for
from raydec.pages.finished_run import SplitView
from raydec.pages.html_page import Buttons, Plot, plot_text, series_color

MAX_POINTS = 2000
_LARGEST_PERPLEXITY = 30
_TSNE_DIMENSIONS = 50
_UMAP_NEIGHBORS, _FEWEST_FOR_UMAP = 15, 20
_MAX_GROUPS = 10
# 7 shapes and 10 colours make 70 different markers.
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "triangle-down")
_UNKNOWN, _OTHERS = "unknown", "others"


@dataclass(frozen=True, eq=False)
class Projection:
    """Chunks and centroids on a plane.

    Attributes:
        name: of the method.
        points: of the chunks.
        centroids: of the clusters; None for a model without centroids.
        x_title: title of the first axis.
        y_title: title of the second axis.
    """

    name: str
    points: Float32[np.ndarray, "chunk 2"]
    centroids: Float32[np.ndarray, "cluster 2"] | None
    x_title: str
    y_title: str


def choose_chunks(num_chunks: int, seed: int, limit: int = MAX_POINTS) -> Int64[np.ndarray, " chosen"]:
    """At most ``limit`` random chunk numbers in increasing order, determined by the seed."""
    if num_chunks <= limit:
        return np.arange(num_chunks)
    return np.sort(generator_for(seed, "map").choice(num_chunks, size=limit, replace=False))


def project(
    embeddings: Float32[np.ndarray, "chunk dim"],
    centroids: Float32[np.ndarray, "cluster dim"] | None,
    seed: int,
) -> tuple[Projection, ...]:
    """PCA of the chunks, and t-SNE of chunks and centroids together if there are enough of them.

    UMAP is added if cuML or umap-learn is installed.

    Args:
        embeddings: of the chunks on the map.
        centroids: in the same space.
        seed: of t-SNE and UMAP. On one machine the same input and seed give the same map.
    """
    from threadpoolctl import threadpool_limits

    # Several threads add in a different order each time, and t-SNE amplifies the rounding differences.
    with threadpool_limits(1):
        axes, shares = _principal_axes(embeddings)
        mean = embeddings.mean(axis=0, dtype=np.float64)
        placed = [(rows - mean) @ axes for rows in (embeddings, centroids) if rows is not None]
        both = np.concatenate(placed)
        titles = tuple(f"component {i} ({share:.0%} of variance)" for i, share in enumerate(shares, 1))
        planes = [("PCA", both[:, :2], titles)]
        if len(both) >= 5 and np.ptp(both) > 0:
            planes.append(("t-SNE", _tsne(both, seed), ("t-SNE 1", "t-SNE 2")))
        if len(both) >= _FEWEST_FOR_UMAP and np.ptp(both) > 0 and (umap := _umap_class()) is not None:
            planes.append(("UMAP", _umap(umap, both, seed), ("UMAP 1", "UMAP 2")))
    count = len(embeddings)
    return tuple(
        Projection(
            name,
            plane[:count].astype(np.float32),
            None if centroids is None else plane[count:].astype(np.float32),
            *titles,
        )
        for name, plane, titles in planes
    )


def _principal_axes(
    embeddings: Float[np.ndarray, "chunk dim"],
) -> tuple[Float[np.ndarray, "dim axis"], tuple[float, float]]:
    """The directions of largest variance (at least two), and the share of variance of the first two."""
    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    variances, vectors = np.linalg.eigh(centred.T @ centred)
    # eigh sorts in increasing order, and the sign of an eigenvector is arbitrary.
    axes = vectors[:, ::-1][:, :_TSNE_DIMENSIONS]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    if axes.shape[1] < 2:
        axes = np.pad(axes, ((0, 0), (0, 2 - axes.shape[1])))
    variances = np.pad(np.maximum(variances[::-1], 0), (0, 2))
    total = variances.sum() or 1.0
    return axes, (float(variances[0] / total), float(variances[1] / total))


def _tsne(values: Float[np.ndarray, "point axis"], seed: int) -> Float[np.ndarray, "point 2"]:
    from sklearn.manifold import TSNE

    perplexity = min(_LARGEST_PERPLEXITY, (len(values) - 1) / 3)
    method = TSNE(init="pca", perplexity=perplexity, random_state=integer_seed_for(seed, "t-SNE"), n_jobs=1)
    return method.fit_transform(values.astype(np.float32))


def _umap_class() -> Any:
    """UMAP of cuML on a machine with a GPU, else of umap-learn; None without either."""
    import torch

    if torch.cuda.is_available() and importlib.util.find_spec("cuml") is not None:
        return importlib.import_module("cuml.manifold").UMAP
    if importlib.util.find_spec("umap") is not None:
        return importlib.import_module("umap").UMAP
    return None


def _umap(method: Any, values: Float[np.ndarray, "point axis"], seed: int) -> Float[np.ndarray, "point 2"]:
    neighbors = min(_UMAP_NEIGHBORS, len(values) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # UMAP warns that a seed makes it single-threaded; this is intended
        fitted = method(n_neighbors=neighbors, random_state=integer_seed_for(seed, "UMAP"))
        return np.asarray(fitted.fit_transform(values.astype(np.float32)))


def cluster_map(
    view: SplitView,
    centroids: Float32[np.ndarray, "cluster dim"] | None,
    front_end: FrontEnd,
    form: ChunkFormat,
    *,
    seed: int,
) -> Plot:
    """The map of a split whose embeddings were kept.

    Args:
        view: the split.
        centroids: of the model.
        front_end: what made the frames, for times.
        form: the chunk geometry.
        seed: of t-SNE.
    """
    chunks, num_chunks = view.kept, len(view) * view.num_chunks
    projections = project(view.embeddings, centroids, seed)
    colourings = _colourings(view, chunks)
    start_s, end_s = chunk_times(view, chunks, front_end, form)
    content = {
        "size": 8 if len(chunks) <= 700 else 6,
        "positions": [_position(projection) for projection in projections],
        "colourings": colourings,
        "hover": _hover(view, chunks, start_s, end_s),
        "centroid_names": [str(number) for number in range(0 if centroids is None else len(centroids))],
        "centroid_hover": [
            f"centroid of cluster {number}" for number in range(0 if centroids is None else len(centroids))
        ],
    }
    shown = "all" if len(chunks) == num_chunks else f"a random {len(chunks):,} of"
    names = [colouring["name"] for colouring in colourings]
    return Plot(
        name="cluster-map",
        title="Cluster map",
        alternative=f"Scatter plot of {len(chunks)} chunk embeddings of split {view.split}, to be coloured "
        f"by {', '.join(names)}; chunks with similar embeddings lie close together",
        content={"map": content},
        caption=f"Each point is one chunk of split {view.split} ({shown} {num_chunks:,} chunks), "
        "placed by its embedding, the input of K-means. Numbered circles are the centroids. Hover "
        "for the utterance; click the legend to hide a group, double-click to see it alone. PCA preserves "
        "large distances; t-SNE and UMAP preserve neighbourhoods, and the size of their groups and the gaps "
        "between them mean nothing.",
        height_px=620,
        buttons=(
            Buttons("colouring", "Colour by", tuple(names)),
            Buttons("position", "Projection", tuple(projection.name for projection in projections)),
        ),
    )


def chunk_times(
    view: SplitView, chunks: Int64[np.ndarray, " chosen"], front_end: FrontEnd, form: ChunkFormat
) -> tuple[Float[np.ndarray, " chosen"], Float[np.ndarray, " chosen"]]:
    """Start and end of chunks in their utterances, in seconds; a chunk ends where its utterance ends."""
    utterances, places = np.divmod(chunks, view.num_chunks)
    num_frames = view.table["num_frames"].to_numpy().astype(np.int64)[utterances]
    duration_s = view.table["duration_s"].to_numpy()[utterances]
    return front_end.chunk_seconds(form, places, num_frames, duration_s)


def _position(projection: Projection) -> dict[str, Any]:
    def plane(points: Float32[np.ndarray, "point 2"]) -> dict[str, list[float]]:
        return {"x": _rounded(points[:, 0]), "y": _rounded(points[:, 1])}

    centroids = None if projection.centroids is None else plane(projection.centroids)
    titles = {"x_title": projection.x_title, "y_title": projection.y_title}
    return {**plane(projection.points), "centroids": centroids, **titles}


def _rounded(values: Float[np.ndarray, " point"]) -> list[float]:
    """Values with four digits, more than a screen can show."""
    return [float(f"{value:.4g}") for value in values]


def _hover(
    view: SplitView,
    chunks: Int64[np.ndarray, " chosen"],
    start_s: Float[np.ndarray, " chosen"],
    end_s: Float[np.ndarray, " chosen"],
) -> list[str]:
    about = _about_utterances(view)
    lines = []
    for chunk, start, end in zip(chunks.tolist(), start_s, end_s, strict=True):
        cluster = "" if view.chunk_clusters is None else f", cluster {view.chunk_clusters[chunk]}"
        head, rest = about[chunk // view.num_chunks]
        lines.append(f"{head}<br>{start:.2f} to {end:.2f} s{cluster}<br>{rest}")
    return lines


def _about_utterances(view: SplitView) -> list[tuple[str, str]]:
    ids, speakers, emotions = (view.column(name) for name in ("utterance_id", "speaker", "emotion"))
    about = []
    for row, label in enumerate(view.labels):
        named = zip(view.attributes, label, strict=True)
        known = [f"{name} {value:.2f}" for name, value in named if not np.isnan(value)]
        known += [f"emotion {plot_text(emotions[row])}"] if emotions[row] is not None else []
        known += [f"speaker {plot_text(speakers[row])}"] if speakers[row] is not None else []
        about.append((f"<b>{plot_text(ids[row])}</b>", ", ".join(known)))
    return about


def _colourings(view: SplitView, chunks: Int64[np.ndarray, " chosen"]) -> list[dict[str, Any]]:
    """The choices for colouring points: cluster, attributes, and emotion and speaker if known."""
    utterances = chunks // view.num_chunks
    found: list[dict[str, Any]] = []
    if view.chunk_clusters is not None:
        found.append({"name": "cluster", "groups": _cluster_groups(view.chunk_clusters[chunks])})
    for column, attribute in enumerate(view.attributes):
        values = view.labels[:, column]
        if not np.isnan(values).all():
            found.append(_number_colouring(attribute, values[utterances]))
    for name in ("emotion", "speaker"):
        texts = view.column(name)
        if any(text is not None for text in texts):
            found.append({"name": name, "groups": _text_groups([texts[row] for row in utterances])})
    return found


def _number_colouring(name: str, values: Float[np.ndarray, " point"]) -> dict[str, Any]:
    """Colours by value; the scale ends at the 2nd and 98th percentile, so that outliers do not flatten it."""
    low, high = np.nanquantile(values, [0.02, 0.98])
    return {
        "name": name,
        "values": [None if np.isnan(value) else round(float(value), 3) for value in values],
        "low": float(low),
        "high": float(high if high > low else low + 1),
    }


def _cluster_groups(clusters: Int64[np.ndarray, " point"]) -> list[dict[str, Any]]:
    return [_group(str(number), clusters == number, int(number)) for number in np.unique(clusters)]


def _text_groups(texts: Sequence[str | None]) -> list[dict[str, Any]]:
    """The most frequent values by size; the others and the unknown in grey."""
    counts = Counter(text for text in texts if text is not None)
    frequent = sorted(counts, key=lambda text: (-counts[text], text))
    # No two groups share a colour; the remaining values are grey.
    most = _MAX_GROUPS if len(frequent) <= _MAX_GROUPS else _MAX_GROUPS - 1
    values = np.array(texts, dtype=object)
    groups = [_group(plot_text(text), values == text, number) for number, text in enumerate(frequent[:most])]
    rare = set(frequent[most:])
    others = np.array([text in rare for text in texts], dtype=bool)
    unknown = np.array([text is None for text in texts], dtype=bool)
    rest = ((f"{_OTHERS} ({len(frequent) - most})", others), (_UNKNOWN, unknown))
    # Drawn first, so that they lie below the others; their rank puts them last in the legend.
    grey = [_group(name, members, None) for name, members in rest if members.any()]
    return grey + groups


def _group(name: str, members: Bool[np.ndarray, " point"], number: int | None) -> dict[str, Any]:
    """Points of one colour and shape; those without a number are grey and last in the legend."""
    return {
        "name": name,
        "rows": np.flatnonzero(members).tolist(),
        "color": "var(--missing)" if number is None else series_color(number),
        "symbol": _SYMBOLS[(number or 0) % len(_SYMBOLS)],
        "rank": 2000 if number is None else 1000,
    }
