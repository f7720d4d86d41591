"""Published models on the Hugging Face hub: where one is fetched from, and how one gets there."""

from pathlib import Path

from utils.errors import ConfigError
from utils.paths import user_path
from utils.published_folder import PublishedFolder

NAME_RULE = "letters, digits, '_', '.' and '-', the last two neither first, last nor twice; 96 at most"
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
    if not _is_repository(str(source)):
        raise ConfigError(f"published model '{source}': no such folder, and no 'user/name' of the hub ({NAME_RULE})")
    return PublishedFolder(_fetch(str(source), revision))


def push(folder: PublishedFolder, repository: str, private: bool) -> str:
    """Upload a published folder as one commit of a repository of the hub, which is made where needed; return its URL.

    A file of an earlier model there that this one lacks goes with the same commit. The hub's own login counts. Raises
    ConfigError naming the reason when the hub is out of reach or refuses, and where `private` meets a public one.
    """
    from huggingface_hub import HfApi

    here = [path.name for path in folder.files if path.is_file()]
    try:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        is_public = private and not api.model_info(repository).private
        if not is_public:
            api.upload_folder(
                repo_id=repository,
                folder_path=folder.path,
                allow_patterns=here,
                delete_patterns=[path.name for path in folder.files if path.name not in here],
                commit_message="Publish the model",
            )
    except Exception as error:  # the hub's client raises what its HTTP library does, which differs by version
        raise ConfigError(
            f"--push {repository}: not uploaded ({_reason(error)}); '{folder.path}' is whole: connect to the network, "
            f"log in with 'hf auth login', then --out {folder.path} --push {repository} without --run"
        ) from error
    if is_public:
        raise ConfigError(
            f"--push {repository}: not uploaded, it is there already and is public, which --private does not change; "
            "name another one, make it private on its page, or leave --private out"
        )
    return f"{api.endpoint}/{repository}"


def check_repository(repository: str) -> None:
    """Raise ConfigError for a name that is no `user/name`."""
    if not _is_repository(repository):
        raise ConfigError(f"--push got '{repository}', expected user/name: {NAME_RULE}")


def _is_repository(name: str) -> bool:
    """Return whether a name is a `user/name` by the hub's rules."""
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return "/" in name


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
