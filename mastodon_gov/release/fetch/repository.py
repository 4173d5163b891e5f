"""Sources and gems from git: one commit of each, checked by git itself, without the history where the server allows."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .download import without_password
from .pieces import Repository, Unfetchable, again


def export(repository: Repository, cache: Path, *, offline: bool) -> None:
    """Put the files of the commit into its directory, by a rename. Raises Unfetchable."""
    directory, bare = cache / repository.directory, cache / "git" / f"{Path(repository.directory).name}.git"
    mark = bare / "exported"
    if directory.is_dir() and mark.exists() and mark.read_text() == repository.commit:
        return
    if not (bare / "HEAD").exists():
        bare.mkdir(parents=True, exist_ok=True)
        _git(bare, "init", "--quiet", "--bare", ".")
    if not _has(bare, repository.commit):
        _fetch(repository, bare, offline)
    part = directory.with_name(directory.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    (bare / "index").unlink(missing_ok=True)
    _git(bare, f"--work-tree={part.resolve()}", "checkout", "--quiet", "--force", repository.commit, "--", ".")
    shutil.rmtree(directory, ignore_errors=True)
    part.rename(directory)
    mark.write_text(repository.commit)


def _fetch(repository: Repository, bare: Path, offline: bool) -> None:
    """The commit alone; everything where a server does not hand out single commits."""
    if offline:
        raise Unfetchable(again(f"{repository.name}: commit {repository.commit} is not in the offline directory"))
    url = repository.url
    alone = _run(bare, "fetch", "--quiet", "--depth=1", url, repository.commit)
    if alone.returncode:
        all_of_it = _run(bare, "fetch", "--quiet", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        if all_of_it.returncode:
            raise Unfetchable(
                f"{repository.name}: git cannot read {without_password(url)}: {_last(all_of_it)}. Name another "
                "place in the file given with --sources: git_url for the application, overrides: "
                f"{{'{repository.name}': {{url: …}}}} for a gem."
            )
    if not _has(bare, repository.commit):
        raise Unfetchable(
            f"{repository.name}: {without_password(url)} has no commit {repository.commit}. It is not the repository "
            "that was pinned, or a mirror that is behind: choose another one in the file given with --sources."
        )


def _has(bare: Path, commit: str) -> bool:
    return _run(bare, "cat-file", "-e", f"{commit}^{{commit}}").returncode == 0


def _git(bare: Path, *words: str) -> None:
    done = _run(bare, *words)
    if done.returncode:
        raise Unfetchable(
            f"git {words[0]} failed in {bare}: {_last(done)}. Run again; if it stays, remove that directory."
        )


def _run(bare: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"GIT_DIR": str(bare), "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1"}
    argv = ["git", "-c", "fetch.fsckObjects=true", "-c", "core.autocrlf=false", *words]
    return subprocess.run(argv, cwd=bare, env=environment, capture_output=True, text=True, check=False)


def _last(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stderr.strip().splitlines() or ["git said nothing"])[-1]
