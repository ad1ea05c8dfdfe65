"""A table of the utterances nearest to each centroid, with audio clips if wanted."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import soundfile
from markupsafe import Markup

from raydec.corpus.table import segments
from raydec.errors import AudioError
from raydec.features.audio import load_audio
from raydec.features.front_end import ChunkFormat, FrontEnd
from raydec.pages.cluster_map import chunk_times
from raydec.pages.finished_run import SplitView
from raydec.pages.html_page import Table, series_color

PER_CLUSTER = 3
AUDIO_BUDGET_BYTES = 3_000_000
"""Limit for all clips of a page, about 70 of one second each, so that the page stays below 10 MB."""
_FADE_S = 0.01
_LOUDEST = 0.9


@dataclass(frozen=True)
class NearChunk:
    """A chunk that lies near a centroid.

    Attributes:
        cluster: number of the centroid's cluster.
        chunk: its number in the split.
        utterance: index of its utterance in the split.
        distance: to the centroid.
        start_s: its start in the utterance.
        end_s: its end in the utterance.
    """

    cluster: int
    chunk: int
    utterance: int
    distance: float
    start_s: float
    end_s: float


def nearest_chunks(
    view: SplitView, front_end: FrontEnd, form: ChunkFormat, per_cluster: int = PER_CLUSTER
) -> list[NearChunk]:
    """For each cluster, the chunks nearest to its centroid, nearest first, at most one per utterance.

    Args:
        view: a split with clusters and distances.
        front_end: what made the frames.
        form: the chunk geometry.
        per_cluster: number of utterances per cluster.
    """
    assert view.chunk_clusters is not None and view.distances is not None
    found = []
    for cluster in np.unique(view.chunk_clusters):
        members = np.flatnonzero(view.chunk_clusters == cluster)
        members = members[np.argsort(view.distances[members], kind="stable")]
        # The first occurrence of each utterance, in order of distance.
        _, firsts = np.unique(members // view.num_chunks, return_index=True)
        chosen = members[np.sort(firsts)[:per_cluster]]
        starts, ends = chunk_times(view, chosen, front_end, form)
        for chunk, start, end in zip(chosen.tolist(), starts.tolist(), ends.tolist(), strict=True):
            distance = float(view.distances[chunk])
            found.append(NearChunk(int(cluster), chunk, chunk // view.num_chunks, distance, start, end))
    return found


def nearest_table(view: SplitView, chunks: list[NearChunk], *, with_audio: bool) -> Table:
    """A table of the nearest chunks, with clips of their audio if wanted."""
    known = [name for name in ("speaker", "emotion") if any(view.column(name))]
    header = ["cluster", "utterance", "seconds", "distance", *known, *view.attributes]
    rows = [_row(view, near, known) for near in chunks]
    caption = (
        "The chunks nearest to each centroid, each from a different utterance. They show what the cluster "
        "represents. Attributes are the utterance's labels, with predictions in brackets."
    )
    if with_audio:
        header.append("clip")
        clips = _clips(view, chunks)
        rows = [[*row, clip] for row, clip in zip(rows, clips, strict=True)]
        caption += " A clip is exactly the chunk that the network saw, scaled to the same peak level."
    return Table("Nearest to each centroid", header, rows, caption, tall=True)


def _row(view: SplitView, near: NearChunk, known: list[str]) -> list[str]:
    scores = view.scores[near.utterance, : len(view.attributes)]
    pairs = zip(view.labels[near.utterance], scores, strict=True)
    swatch = Markup('<span class="swatch" style="background:{}"></span>{}')
    return [
        swatch.format(series_color(near.cluster), near.cluster),
        str(view.column("utterance_id")[near.utterance]),
        f"{near.start_s:.2f} to {near.end_s:.2f}",
        f"{near.distance:.3f}",
        *(view.column(name)[near.utterance] or "–" for name in known),
        *(f"{'–' if np.isnan(label) else format(label, '.2f')} ({score:.2f})" for label, score in pairs),
    ]


def _clips(view: SplitView, chunks: list[NearChunk]) -> list[str]:
    """An audio player for each chunk, starting with the nearest of every cluster, up to the size limit."""
    rank: dict[int, int] = {}
    order = []
    for place, near in enumerate(chunks):
        rank[near.cluster] = rank.get(near.cluster, -1) + 1
        order.append((rank[near.cluster], place))
    clips = ["omitted to limit the size of the page"] * len(chunks)
    left = AUDIO_BUDGET_BYTES
    for _, place in sorted(order):
        player = _player(view, chunks[place])
        if len(player) <= left:
            clips[place] = player
            left -= len(player)
    return clips


def _player(view: SplitView, near: NearChunk) -> str:
    path = view.column("path")[near.utterance]
    try:
        offset_s = segments(view.table)[near.utterance].start_s
        clip = clip_wav(str(path), offset_s + near.start_s, offset_s + near.end_s)
    except AudioError as error:
        return f"no clip: {error.reason}"
    name = f"{near.start_s:.2f} to {near.end_s:.2f} s of {view.column('utterance_id')[near.utterance]}"
    player = Markup('<audio controls preload="none" aria-label="{}" src="data:audio/wav;base64,{}"></audio>')
    return player.format(name, base64.b64encode(clip).decode())


def clip_wav(path: str, start_s: float, end_s: float, sample_rate: int = 16000) -> bytes:
    """A part of a recording as a WAV file, mono PCM16, scaled to a fixed peak level.

    Raises:
        AudioError: the file is missing or not audio.
    """
    samples = load_audio(path, sample_rate)[round(start_s * sample_rate) : round(end_s * sample_rate)].copy()
    peak = float(np.abs(samples).max(initial=0.0))
    if peak > 0:
        samples *= _LOUDEST / peak
    fade = min(round(_FADE_S * sample_rate), len(samples) // 2)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    # Without a fade, the cut is heard as a click.
    samples[:fade] *= ramp
    samples[len(samples) - fade :] *= ramp[::-1]
    file = io.BytesIO()
    soundfile.write(file, samples, sample_rate, format="WAV", subtype="PCM_16")
    return file.getvalue()
