"""Which server programs to run, and as whom.

Postgres refuses to run as root, so root's servers run as an unprivileged account. That account
often cannot enter the folder of the virtual environment (/root is closed to others). No folder is
opened for it: the programs are copied, once, to a cache that everyone may read.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from pgclip.local.errors import LocalServicesError

CACHE = Path("/var/cache/pgclip")
# Nothing of the caller's environment (PGPORT, LD_PRELOAD, secrets) reaches a server.
ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}
_ACCOUNTS = ("postgres", "pgserver", "nobody")


@dataclass(frozen=True)
class Account:
    """The unprivileged user that root's servers run as."""

    uid: int
    gid: int


def server_account(folder: Path) -> Account | None:
    """Return the account for the server whose data is in `folder`; None: run as ourselves."""
    if os.geteuid() != 0:
        return None
    if folder.exists() and (owner := folder.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    for name in _ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise LocalServicesError(
        f"Postgres does not run as root, and none of the users {', '.join(_ACCOUNTS)} exists. "
        "Create one (useradd --system pgserver) or run as another user."
    )


def run_as(account: Account | None) -> dict[str, Any]:
    """Return the arguments that make subprocess run a server as `account`."""
    common: dict[str, Any] = {"env": ENVIRONMENT, "start_new_session": True}
    if account is None:
        return common
    return common | {"user": account.uid, "group": account.gid, "extra_groups": []}


def required(module: str) -> ModuleType:
    """Import a module of the `local` extra, or say how to install it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise LocalServicesError(_missing(module)) from error


def version_of(program: Path, account: Account | None) -> str | None:
    """Return what `program --version` prints as `account`; None when it cannot be run."""
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [program, "--version"],
            cwd="/",
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            **run_as(account),
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def wheel_program(
    package: str, program: str, needs: Sequence[str], account: Account | None
) -> Path:
    """Return the path of a wheel's `program` (a glob) in a place where `account` can run it.

    `needs` are the prefixes of the wheel's files which the program cannot do without.
    """
    try:
        wheel = metadata.distribution(package)
    except metadata.PackageNotFoundError as error:
        raise LocalServicesError(_missing(package)) from error
    files = [str(file) for file in wheel.files or ()]
    name = next((file for file in files if Path(file).match(program)), None)
    if name is None:
        raise LocalServicesError(f"{package} {wheel.version} has no {program}. {_missing(package)}")
    source = Path(str(wheel.locate_file("")))
    if version_of(source / name, account) is not None:
        return source / name
    copy = CACHE / f"{package}-{wheel.version}"
    if account is not None and not copy.exists():
        _copy(source, [file for file in files if file.startswith(tuple(needs))], copy)
    if version_of(copy / name, account) is None:
        raise LocalServicesError(
            f"{source / name} cannot be run (user {account.uid if account else os.geteuid()}). "
            "Is the file system mounted noexec, or the wheel made for another system?"
        )
    return copy / name


def _copy(source: Path, files: Sequence[str], target: Path) -> None:
    """Copy a wheel's files so that everyone may run them; `target` appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.parent.chmod(0o755)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        tree = Path(scratch, "tree")
        for file in files:
            (tree / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, tree / file)
        for path in (tree, *tree.rglob("*")):
            path.chmod(0o755)
        try:
            tree.rename(target)
        except OSError:
            if not target.exists():  # otherwise another process was quicker
                raise


def _missing(what: str) -> str:
    return f"The embedded services need {what}: pip install 'pgclip[local]', or give URLs."
