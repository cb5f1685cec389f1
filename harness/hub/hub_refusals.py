"""Why something cannot be had from the model hub, in one sentence."""

from __future__ import annotations

import errno
from pathlib import Path

from harness.errors import PhaseError, chain_of

LOG_IN = "`hf auth login` or the variable HF_TOKEN"
AGAIN = "try again, whole files are kept"


class HubError(PhaseError):
    """A model or dataset cannot be had as asked; the message says which, why, and what to do."""


def explain(error: Exception, name: str, revision: str | None, cache: Path) -> str:
    """The sentence for an error of the hub's client; its causes are looked at too, because it wraps most of them.

    Args:
        error: what was raised.
        name: the repository, with its kind.
        revision: what was asked for.
        cache: the directory of the local cache.
    """
    from huggingface_hub import errors, get_token

    chain = list(chain_of(error))
    for link in chain:
        if isinstance(link, errors.GatedRepoError):
            page = "accept its conditions on its page in a browser while logged in"
            if get_token() is None:
                return f"{name} is gated and no token is set: {page}, then give your token with {LOG_IN}"
            return f"{name} is gated and your token's account is not admitted: {page} to that account, then try again"
        if isinstance(link, errors.RepositoryNotFoundError):
            return f"the hub shows no {name}: check the spelling or, if it is private, give a token with {LOG_IN}"
        if isinstance(link, errors.RevisionNotFoundError):
            return f"{name} has no revision {revision}: name a branch, a tag or a commit that it has"
        if isinstance(link, errors.HfHubHTTPError):
            status = link.response.status_code
            if status == 401:
                return f"the hub refuses your token ({status}) for {name}: give a valid one with {LOG_IN}"
            return f"the hub answers {status} to the request for {name}: {AGAIN}"
        if isinstance(link, OSError):
            if link.errno in (errno.ENOSPC, errno.EDQUOT):
                return f"the disk of {cache} is full and {name} is not whole: make room and {AGAIN}"
            # A connection can be forbidden too, but only files have a name.
            if link.errno in (errno.EACCES, errno.EPERM, errno.EROFS) and link.filename is not None:
                return (
                    f"{name} cannot be written to {link.filename} ({link.strerror}): let the variable HF_HUB_CACHE "
                    "name a directory that you can write"
                )
    root = chain[-1]
    detail = next(iter(str(root).splitlines()), "no more is said")
    return f"{name} cannot be fetched ({type(root).__name__}: {detail}): check network and proxy and {AGAIN}"
