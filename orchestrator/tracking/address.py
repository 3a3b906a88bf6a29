"""Addresses of trackers: what may be shown of them, and which of them the user has agreed to.

A sweep's folder names the tracker that it was mirrored to. Whoever opens a folder that somebody else made would send user,
password and token of the environment (MLFLOW_TRACKING_USERNAME and others) to a server that only the folder names. So an
address counts only once this user has given it here; that is remembered in the user's own state folder, not in the home.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import SplitResult, unquote, urlsplit

from orchestrator.home import Home, sqlite_uri, write_json
from search_spaces import ConfigError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

#: What MLflow can write to: servers, and databases.
TRACKERS: Final = ("http://", "https://", "databricks", "sqlite:", "postgresql", "mysql", "mssql")
_SERVERS: Final = ("http://", "https://")
#: MLflow's own variables whose values are never shown.
_SECRET_VARIABLES: Final = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD", "MYSQL_PWD")
_SECRET_KEY: Final = re.compile(
    r"(?i)\b([\w-]*(?:password|passwd|pwd|token|secret|api_?key)[\w-]*\s*[=:]\s*)[^\s&'\",;]+"
)
#: An address of a server that every parser reads alike: after the host there is no `@`, which could end a user's name for one
#: parser and be part of the path for another, and nowhere a backslash, a space or what is not printable.
_HTTP: Final = re.compile(
    r"(?P<scheme>https?)://(?:[^\s\\/?#\[\]]*@)?(?P<host>[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>\d{1,5}))?"
    r"(?P<path>/[^\s\\?#@]*)?(?:[?#][^\s\\@]*)?"
)
_USER_INFO: Final = re.compile(r"(\w://)[^\s'\"]*@")


def public_uri(uri: str) -> str:
    """A tracker's address without what is secret in it: user and password, query, fragment."""
    if "://" not in uri or uri.startswith("sqlite:"):
        return uri
    if uri.startswith(_SERVERS):
        found = _server(uri)
        return f"{_place(found)}{found['path'] or ''}" if found else f"{uri.partition('://')[0]}://..."
    url = _parsed(uri)
    if url is None:
        return f"{uri.partition('://')[0]}://..."
    host = (url.host or "").rpartition("@")[2]  # the part of a password after an @ that was not written as %40
    path = None if url.database is None else url.database.partition("#")[0]
    shown = type(url).create(url.drivername, host=host or None, port=url.port, database=path)
    return shown.render_as_string()


def _server(uri: str) -> re.Match[str] | None:
    """The parts of a server's address; None where clients could take it for different servers."""
    return _HTTP.fullmatch(uri) if uri.isascii() and uri.isprintable() else None


def _place(found: re.Match[str]) -> str:
    """Scheme, host and port, as they are written."""
    return f"{found['scheme']}://{found['host']}" + (f":{found['port']}" if found["port"] else "")


def require_readable(uri: str) -> None:
    """Refuse an address of a server that can be read in more than one way.

    Raises:
        ConfigError: With how such an address is written.
    """
    if uri.startswith(_SERVERS) and _server(uri) is None:
        raise ConfigError(
            f"--tracking-uri: must be readable in one way, got {public_uri(uri)!r}; write http(s)://HOST:PORT/PATH, and "
            "what is special in a user's name or password as %40 (@), %2F (/), %3F (?), %23 (#)."
        )


def _parsed(uri: str) -> URL | None:
    """An address in its parts; None for what is none."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(uri)
    except (ArgumentError, ValueError):
        return None


def without_secrets(error: object) -> str:
    """The first line of what a tracker says, without users and passwords in addresses."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return hidden(text)[:300]


def hidden(text: str) -> str:
    """A text without users and passwords in addresses, values of keys such as `password=`, and the environment's own."""
    text = _SECRET_KEY.sub(r"\1***", _USER_INFO.sub(r"\1", text))
    for name in _SECRET_VARIABLES:
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    return text


def check_uri(uri: str) -> None:
    """Refuse what MLflow cannot read from, and a database file that is not there: MLflow would make one.

    Raises:
        ConfigError: With what is allowed.
    """
    if not uri.startswith(TRACKERS):
        raise ConfigError(f"--tracking-uri: must begin with one of {', '.join(TRACKERS)}, got {public_uri(uri)!r}.")
    require_readable(uri)
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        raise ConfigError(f"--tracking-uri: there is no file {path}.")


def sqlite_path(uri: str) -> Path | None:
    """The file behind an address of SQLite; None for another address."""
    if not uri.startswith("sqlite:///"):
        return None
    url = _parsed(uri)
    return Path(url.database) if url and url.database else None


def require_agreed(uri: str, home: Home, sweep: str) -> None:
    """Refuse a stored address that this user has not given before: credentials would be sent to it.

    Args:
        uri: As the sweep's folder has it.
        home: Whose own store needs no agreement.
        sweep: Name of the sweep, for the message.

    Raises:
        ConfigError: With the address, and how to agree to it.
    """
    require_readable(uri)
    if "?" in uri and not uri.startswith((*_SERVERS, "sqlite:")):  # `?host=` would be the server; we store none
        raise ConfigError(f"sweep {sweep!r} names a tracker with a `?` in its address, {public_uri(uri)}; refused.")
    if uri in ("off", home.store_uri) or _server_of(uri) in _agreed():
        return
    if os.environ.get("MLFLOW_TRACKING_URI") and _server_of(os.environ["MLFLOW_TRACKING_URI"]) == _server_of(uri):
        return
    raise ConfigError(
        f"sweep {sweep!r} names the tracker {public_uri(uri)}, which you have not given here before; your MLflow user, "
        f"password and token would be sent there. Give --tracking-uri {public_uri(uri)} once if that is right."
    )


def agree(uri: str) -> None:
    """Remember an address that the user has given; where that cannot be written, it is asked for again.

    Raises:
        ConfigError: If it is no address.
    """
    require_readable(uri)
    if uri == "off" or (server := _server_of(uri)) in (known := _agreed()):
        return
    with suppress(OSError):
        write_json(_remembered(), {"trackers": sorted({*known, server})})


def _agreed() -> set[str]:
    """Servers that the user has given before."""
    try:
        known = json.loads(_remembered().read_text())["trackers"]
        return {str(server) for server in known}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()


def _remembered() -> Path:
    """The user's own file, in no home directory of ours, since those are copied from colleagues."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "lossatlas" / "trackers.json"


def _server_of(uri: str) -> str:
    """Scheme, host and port; of a file its path."""
    if (path := sqlite_path(uri)) is not None:
        return sqlite_uri(path.absolute())
    if found := _server(uri):
        return f"{found['scheme']}://{found['host'].strip('[]').lower()}:{found['port'] or ''}"
    url = None if uri.startswith(_SERVERS) else _parsed(uri)
    if url is None:
        return uri
    host = (url.host or "").rpartition("@")[2]
    return f"{url.drivername}://{host.lower()}:{url.port or ''}"


def require_own_place(artifact_uri: str, home: Home, tracker: str) -> None:
    """Refuse to write files where a tracker says: on this machine only below the home, else only to agreed servers.

    Args:
        artifact_uri: Of a run, as the tracker gives it.
        home: Where files may be written.
        tracker: Address of the tracker, which the user has agreed to.

    Raises:
        ConfigError: If it is another folder of this machine, or a server that the user has not agreed to.
    """
    parts = _parts(artifact_uri)
    if parts.scheme not in ("", "file"):
        require_agreed_place(artifact_uri, tracker)
        return
    place, root = Path(unquote(parts.path)).resolve(), home.path.resolve()
    if parts.netloc not in ("", "localhost") or not place.is_relative_to(root):
        raise ConfigError(
            f"the tracker wants files to be written to {artifact_uri!r:.200}, outside of the home directory {root}; refused. "
            "A server that takes files itself is started with `mlflow server --artifacts-destination FOLDER`."
        )


def require_agreed_place(artifact_uri: str, tracker: str) -> None:
    """Refuse to ask a server for files, with user and password, that only a tracker names.

    A file of SQLite names folders alone: whoever made it is not a server that the user agreed to.

    Args:
        artifact_uri: Of a run, as the tracker gives it.
        tracker: Address of the tracker, which the user has agreed to.

    Raises:
        ConfigError: If it is a server other than the tracker that the user has not agreed to.
    """
    parts = _parts(artifact_uri)
    if parts.scheme in ("", "file"):
        return
    is_server = not tracker.startswith("sqlite:")
    if parts.scheme in ("http", "https", "mlflow-artifacts"):  # these are sent MLflow's user and password
        server = artifact_uri
        if parts.scheme == "mlflow-artifacts":  # MLflow takes the tracker's scheme, and its host where none is given
            server = f"{tracker.partition('://')[0]}://{parts.netloc}" if parts.netloc else tracker
        is_server = _server(server) is not None and _server_of(server) in {_server_of(tracker), *_agreed()}
    if not is_server:
        raise ConfigError(
            f"the tracker {public_uri(tracker)} keeps files at {hidden(artifact_uri)!r:.200}, a server that you have not "
            "given here before; refused. Give its address with --tracking-uri once if that is right."
        )


def _parts(artifact_uri: str) -> SplitResult:
    """The parts of an artifact place; `urlsplit` would drop what is not printable, and what uses the address would not."""
    try:
        if not artifact_uri.isprintable():
            raise ValueError
        return urlsplit(artifact_uri.strip())
    except ValueError as err:
        raise ConfigError(f"the tracker's place for files cannot be read, got {artifact_uri!r:.200}; refused.") from err
