"""Files of the Hugging Face hub: from its cache, and over the network only what the cache lacks."""

import logging
from pathlib import Path

from utils.errors import ConfigError

logger = logging.getLogger(__name__)

HUB_TIMEOUT = 5.0  # seconds until the hub counts as out of reach; its downloads alone would retry for half a minute


def hub_files(repo: str, needed: tuple[tuple[str, ...], ...], what: str, way_out: str, extra: str = "") -> list[Path]:
    """Return, for each tuple of file names, the first that the hub's repository has, from the cache where all are.

    Only what the cache lacks is asked for. `extra` is put beside the first file where the hub has it; without it the
    others serve. `what` opens the error and `way_out` ends it: ConfigError, within seconds, when the hub is out of
    reach or has no such model or file.
    """
    import huggingface_hub
    from huggingface_hub.constants import HF_HUB_CACHE

    def cached(names: tuple[str, ...]) -> Path | None:
        found = (huggingface_hub.try_to_load_from_cache(repo, name, cache_dir=HF_HUB_CACHE) for name in names)
        return next((Path(path) for path in found if isinstance(path, str)), None)

    try:
        paths = [cached(names) for names in needed]
        if all(paths):
            _ask_for_extra(repo, extra, paths[0])
            return paths
        logger.info("%s: downloading %s from the Hugging Face hub into %s", what, repo, HF_HUB_CACHE)
        present = {entry.rfilename for entry in huggingface_hub.model_info(repo, timeout=HUB_TIMEOUT).siblings}
        chosen = [next((name for name in names if name in present), None) for names in needed]
        if None in chosen:
            raise FileNotFoundError(f"the repository has no {' or '.join(needed[chosen.index(None)])}")
        paths = [Path(huggingface_hub.hf_hub_download(repo, name)) for name in chosen]
    except Exception as error:  # the hub's client raises what its HTTP library does, which differs by version
        raise ConfigError(
            f"{what}: {repo} is not in the cache ({HF_HUB_CACHE}) and could not be fetched from the hub "
            f"({_reason(error)}); connect to the network once, or {way_out}"
        ) from error
    _ask_for_extra(repo, extra, paths[0])
    return paths


def _ask_for_extra(repo: str, name: str, beside: Path) -> None:
    """Fetch a file of the same commit as the cached file `beside`, unless it is cached or known to be absent."""
    import huggingface_hub
    from huggingface_hub.constants import HF_HUB_CACHE

    commit = beside.parent.name
    if not name or huggingface_hub.try_to_load_from_cache(repo, name, cache_dir=HF_HUB_CACHE, revision=commit):
        return
    try:
        huggingface_hub.model_info(repo, timeout=HUB_TIMEOUT)  # is it in reach?
        huggingface_hub.hf_hub_download(repo, name, revision=commit)
    except Exception as error:  # as in hub_files; without the file its reader goes on and says how
        logger.info("%s of %s could not be fetched from the hub (%s)", name, repo, _reason(error))


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
