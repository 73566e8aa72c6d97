"""The cost of reading: the layout of stored chunks, what windows and epochs decode, and memory."""

from collections.abc import Sequence
from math import prod

import numpy as np

from simvp_climate.data import host_memory
from simvp_climate.data.views import has_checksums
from simvp_climate.quality.report import Draft, format_bytes, format_sizes
from simvp_climate.quality.samples import NOTHING_TO_DO, SampledSeries, StoredField

_TINY, _HUGE = 2**16, 2**28  # bytes of a chunk that are too few and too many
_COSTLY_EPOCH = 2**28  # bytes that an epoch reads above which a bad layout matters
_IN_MEMORY_SHARE = 0.6  # of the free memory that training keeps states in


def check_layout(field: StoredField, series: SampledSeries | None, cache_fix: str, draft: Draft) -> None:
    """Add the facts and findings about the chunks of a variable; `cache_fix` makes a copy in a fast layout."""
    properties: dict[str, object] = {"stored": field.chunks or None}
    draft.summary.setdefault("layout", {})[field.source] = properties
    if field.data.chunks is not None:
        properties["dask"] = {str(dim): int(max(sizes)) for dim, sizes in field.data.chunksizes.items()}
    if (checksums := has_checksums(field.data)) is not None:
        properties["checksums"] = checksums
    if not field.chunks or series is None or series.windows is None or "time" not in field.data.dims:
        return
    properties |= _reading_cost(field, series)
    epoch, chunk = properties["epoch_bytes"], properties["chunk_bytes"]
    amplification, share = properties["epoch_amplification"], field.level_share
    chunks, severity = f"chunks of {format_sizes(field.chunks)}", "warning" if epoch > _COSTLY_EPOCH else "note"
    cost = f"an epoch decodes {format_bytes(epoch)} for {format_bytes(epoch / amplification)}, "
    cost += f"{amplification:.3g} times its size"
    if share >= 2:
        levels = field.data.sizes.get("level", 1)
        message = f"chunks hold {share * levels:g} levels and {levels} {'is' if levels == 1 else 'are'} wanted: {cost}"
        message += ". Copying these costs one such pass and pays off from the second epoch on"
        draft.add(severity, "chunk-levels", field.source, message, cache_fix)
    elif amplification >= 2:
        draft.add(severity, "chunk-space", field.source, f"{chunks} hold more than is used: {cost}", cache_fix)
    if chunk > _HUGE:
        message = f"{chunks} are {format_bytes(chunk)} decoded each: a single state costs one of them in memory"
        draft.add("warning", "chunk-huge", field.source, message, cache_fix)
    count = prod(-(-size // field.chunks[dim]) for dim, size in field.data.sizes.items())
    if chunk < _TINY and properties["chunks_per_window"] >= 8 and count >= 1000:
        message = f"{count:,} {chunks}, {format_bytes(chunk)} each: a window takes "
        message += f"{properties['chunks_per_window']:.0f} of them, and opening a chunk costs more than decoding it"
        draft.add("warning", "chunk-tiny", field.source, message, cache_fix)


def _reading_cost(field: StoredField, series: SampledSeries) -> dict[str, float]:
    """Return the bytes of a chunk, and what a window and an epoch decode relative to their own size."""
    data, chunks, share = field.data, field.chunks, field.level_share
    counts = {dim: -(-size // chunks[dim]) for dim, size in data.sizes.items()}
    space = np.prod([counts[dim] * chunks[dim] / data.sizes[dim] for dim in ("latitude", "longitude")])
    levels, length = data.sizes.get("level", 1), chunks["time"]
    used = np.flatnonzero(series.is_used)
    decoded_times = len(np.unique(used // length)) * length
    sampled = series.windows[:: max(1, len(series.windows) // 500)]
    chunks_in_time = float(np.mean([len(np.unique(window // length)) for window in sampled]))
    itemsize = np.dtype(data.encoding.get("dtype") or data.dtype).itemsize
    state = itemsize * levels * data.sizes["latitude"] * data.sizes["longitude"]
    chunks_in_space = counts["latitude"] * counts["longitude"] * max(1.0, levels * share / chunks.get("level", np.inf))
    return {
        "chunk_bytes": prod(chunks.values()) * itemsize,
        "levels_decoded_per_level": share,
        "window_amplification": float(chunks_in_time * length / series.windows.shape[1] * space * share),
        "epoch_amplification": float(decoded_times / len(used) * space * share),
        "epoch_bytes": int(decoded_times * space * share * state),
        "chunks_per_window": float(chunks_in_time * chunks_in_space),
    }


def check_memory(fields: Sequence[StoredField], series: SampledSeries | None, draft: Draft) -> None:
    """Compare the memory for all states, or for a stream of them, with what is free."""
    fields = [field for field in fields if "time" in field.data.dims]
    if not fields or series is None:
        return
    needed, free = int(sum(4 * field.data.size for field in fields)), host_memory.free_memory()
    draft.summary["memory"] = {"states_bytes": needed, "free_bytes": free}
    if free is None or needed <= _IN_MEMORY_SHARE * free:
        return
    # two shards, each one chunk and the rest of the windows that begin in it
    length = 0 if series.windows is None else int((series.windows[:, -1] - series.windows[:, 0]).max())
    streamed = 2 * (max(field.times_per_chunk for field in fields) + length) * needed // len(series.times)
    message = f"all states are {format_bytes(needed)} as float32, {format_bytes(free)} of memory are free: "
    if streamed <= _IN_MEMORY_SHARE * free:
        fix = f"{NOTHING_TO_DO}. To keep them in memory: fewer variables, levels or years"
        draft.add("note", "memory", "all variables", f"{message}they are read anew every epoch", fix)
        return
    message += f"streaming them takes at least {format_bytes(streamed)}"
    fix = "Fewer variables or levels, or a copy in smaller chunks: sc.cache(ds, path)"
    grid = draft.summary["grid"]
    if grid["longitude"]["global"] and grid["latitude"]["size"] > 64:
        fix += '\nor a coarser grid:\nds = sc.regrid(ds, "5.625deg")'
    draft.add("warning", "memory", "all variables", message, fix)
