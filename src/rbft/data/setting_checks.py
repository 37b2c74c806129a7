"""Numbers of the data module that must lie in a range."""

from __future__ import annotations

from rbft.errors import ConfigError


def require_counts(*, batch_size: int, eval_batch_size: int, num_workers: int, max_visual_tokens: int | None) -> None:
    """Refuse counts that are too small.

    Raises:
        ConfigError: Names the key.
    """
    for key, value in (("batch_size", batch_size), ("eval_batch_size", eval_batch_size)):
        if value < 1:
            raise ConfigError(f"data.{key}: {value} must be at least 1.")
    if max_visual_tokens is not None and max_visual_tokens < 1:
        raise ConfigError(f"data.max_visual_tokens: {max_visual_tokens} must be at least 1.")
    if num_workers < 0:
        raise ConfigError(f"data.num_workers: {num_workers} must not be negative.")


def require_open_files(num_workers: int) -> None:
    """Have the system allow as many open files as decoding processes need: with too few, they wait for ever.

    Raises:
        ConfigError: It does not allow so many.
    """
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return
    # pipes and semaphores of each process, and a file for each tensor on its way here
    need = 128 + 64 * num_workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if num_workers == 0 or soft == resource.RLIM_INFINITY or soft >= need:
        return
    if hard != resource.RLIM_INFINITY and hard < need:
        raise ConfigError(
            f"data.num_workers: {num_workers} decoding processes need up to {need} open files, and the system allows "
            f"{hard}. Allow more (`ulimit -n {need}`), or lower data.num_workers; 0 decodes in the run's own process."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def require_room(cache_gb: float, feature_cache_gb: float) -> None:
    """Refuse caches without room.

    Raises:
        ConfigError: Names the key, and the one that turns the cache off.
    """
    if not 0 < cache_gb < float("inf"):
        raise ConfigError(f"data.cache_gb: {cache_gb} must be above 0; data.cache_clips: false keeps no clips.")
    if not 0 < feature_cache_gb < float("inf"):
        raise ConfigError(
            f"data.feature_cache_gb: {feature_cache_gb} must be above 0; data.cache_features: false keeps no features."
        )


def require_state_room(state_memory_gb: float, state_cache_gb: float) -> None:
    """Refuse bounds of kept states that are no numbers of bytes.

    Raises:
        ConfigError: Names the key, and the one that turns the cache off.
    """
    for key, value in (("state_memory_gb", state_memory_gb), ("state_cache_gb", state_cache_gb)):
        if not 0 <= value < float("inf"):
            raise ConfigError(f"data.{key}: {value} must be at least 0; data.cache_states: false keeps no states.")
