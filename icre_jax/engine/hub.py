"""An export on the Hugging Face hub: only when asked for, only where asked for, and for its owner alone at first."""

import importlib.util
import re
from pathlib import Path

from icre_jax.errors import InputError

# What the hub puts into a new repository by itself.
_OF_A_NEW_ONE = {".gitattributes"}


def require_hub(repository: str) -> None:
    """Find out before minutes of work whether `push` can be had; nothing is sent.

    Raises:
      InputError: `repository` is not of the form OWNER/NAME, or the extra "hub" is not installed.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,95}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}", repository):
        raise InputError(
            f"--push is {repository!r}; it must be OWNER/NAME, a user or organisation of the hub and the name of a new "
            "repository, of letters, digits, '-', and in NAME '_' and '.'."
        )
    if importlib.util.find_spec("huggingface_hub") is None:
        raise InputError(
            "--push needs the package huggingface_hub, which is not installed: pip install 'icre_jax[hub]'. Or leave "
            "it out, and upload the folder in another way."
        )


def push(folder: Path, repository: str, *, public: bool = False) -> str:
    """Upload an export to a repository that is made for it, with the account that `hf auth login` chose.

    Args:
      folder: what `icre_jax.engine.export.export` wrote; it goes there as it is, its card with it.
      repository: OWNER/NAME; it is made if it is not there, and may hold nothing yet.
      public: let everybody see it; otherwise only its owner does.

    Returns:
      Its address.

    Raises:
      InputError: as `require_hub`; the repository holds files, or is public although that was not asked for, or the
        other way round; or the hub refuses or cannot be reached. Nothing was uploaded then.
    """
    require_hub(repository)
    import huggingface_hub

    api = huggingface_hub.HfApi()
    try:
        address = str(api.create_repo(repository, private=not public, exist_ok=True))
        private, files = api.repo_info(repository).private, {*api.list_repo_files(repository)} - _OF_A_NEW_ONE
        if files or private == public:
            found = f"holds {', '.join(sorted(files)[:3])}" if files else f"is {'private' if private else 'public'}"
            raise InputError(
                f"{repository} is on the hub already and {found}: nothing was uploaded. Name a new repository"
                f"{'' if files else ', or change that on its page'}."
            )
        api.upload_folder(repo_id=repository, folder_path=str(folder), commit_message=f"{folder.name}, by icre_jax")
    except InputError:
        raise
    except Exception as error:  # of the hub, of the network, of the account: the library's have no common kind
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{folder} is written, but could not be uploaded to {repository}: {reason[0]}. Log in with `hf auth "
            f"login`, see that the account may write there, and start `hf upload {repository} {folder}"
            f"{'' if public else ' --private'}`."
        ) from error
    return address
