"""Addresses of databases and servers: what of them may be shown, and what a study file may not say."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from raystudy.errors import SpecError

_PASSWORD = re.compile(r"(://[^/@:]*):(.*)@", re.DOTALL)  # to the last @: a password may hold one, and a slash too
_IN_QUERY = re.compile(r"[?&](?!passfile=)[^=&]*(?:pass|token|secret)[^=&]*=([^&]+)", re.IGNORECASE)


def without_password(url: str) -> str:
    """The address as it may be shown and recorded; without its query, which may hold a password too."""
    return re.sub(r"\?.*", "", _PASSWORD.sub(r"\1:***@", url), flags=re.DOTALL)


def redacted(text: str, url: str) -> str:
    """``text``, such as an error's, without the address's passwords, in whichever form it quotes them."""
    text = text.replace(url, without_password(url))
    for secret in sorted(_secrets(url), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def has_password(url: str) -> bool:
    return bool(_secrets(url))


def refuse_password(key: str, url: str | None) -> None:
    """SpecError where the study file's ``key`` holds a password: the file is shared, and copied to every machine."""
    if url is not None and has_password(url):
        raise SpecError(
            f"`{key}` holds a password ({without_password(url)}), and a study file is no place for one; take it out. "
            "PostgreSQL's is read from PGPASSWORD, or from the file ~/.pgpass or PGPASSFILE; that of an MLflow server "
            "from MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, all in the environment of the driver"
        )


def _secrets(url: str) -> set[str]:
    """The passwords of an address: as written there, as meant, and as other programs write them."""
    found = _PASSWORD.search(url)
    written = {*_IN_QUERY.findall(url), found[2] if found else ""} - {""}
    meant = {unquote(one) for one in written}
    return written | meant | {quote(one, safe="") for one in meant}
