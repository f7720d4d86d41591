"""Published models on the Hugging Face hub: where one is fetched from, and how one gets there."""

import re
from pathlib import Path

from utils.errors import ConfigError
from utils.paths import user_path
from utils.published_folder import PublishedFolder

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
TIMEOUT = 5.0  # seconds until the hub counts as out of reach


def find_published(source: str | Path, revision: str | None = None) -> PublishedFolder:
    """Return the published model in a folder, or that of a repository `user/name` of the hub, in its cache.

    `revision` is a branch, tag or commit of the repository, None = its last state; out of reach, what the cache has
    serves. Raises ConfigError where there is no such folder or repository, and for a revision of a folder.
    """
    path = user_path(source, "published model")
    if path.is_dir():
        if revision is not None:
            raise ConfigError(f"revision '{revision}' is of a repository of the hub, '{source}' is a folder")
        return PublishedFolder(path)
    if path.exists():
        raise ConfigError(f"published model '{source}' is a file; name its folder, or use from_checkpoint")
    if not REPOSITORY.fullmatch(str(source)):
        raise ConfigError(f"published model '{source}': no such folder, and no 'user/name' of the hub")
    return PublishedFolder(_fetch(str(source), revision))


def push(folder: PublishedFolder, repository: str, private: bool) -> str:
    """Upload a published folder as one commit of a repository of the hub, which is made where needed; return its URL.

    The hub's own login counts. Raises ConfigError naming the reason when the hub is out of reach or refuses.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        names = [path.name for path in folder.files if path.is_file()]
        api.upload_folder(
            repo_id=repository,
            folder_path=folder.path,
            allow_patterns=names,
            commit_message="Publish the model",
        )
    except Exception as error:  # the hub's client raises what its HTTP library does, which differs by version
        raise ConfigError(
            f"--push {repository}: not uploaded ({_reason(error)}); '{folder.path}' is whole: connect to the network, "
            f"log in with 'hf auth login', then --out {folder.path} --push {repository} without --run"
        ) from error
    return f"{api.endpoint}/{repository}"


def check_repository(repository: str) -> None:
    """Raise ConfigError for a name that is no `user/name`."""
    if not REPOSITORY.fullmatch(repository):
        raise ConfigError(f"--push got '{repository}', expected user/name, letters, digits, '.', '_' and '-'")


def _fetch(repository: str, revision: str | None) -> Path:
    """Return the folder of the hub's cache with the files of a repository that a published model may have."""
    from huggingface_hub import snapshot_download

    names = [path.name for path in PublishedFolder(Path()).files]
    try:
        place = snapshot_download(repository, revision=revision, allow_patterns=names, etag_timeout=TIMEOUT)
    except Exception as error:  # as in `push`
        raise ConfigError(
            f"no folder '{repository}', and the model could not be fetched from the hub ({_reason(error)}); connect to "
            "the network once, correct the name, or copy its folder here and name that"
        ) from error
    return Path(place)


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
