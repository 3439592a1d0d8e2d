"""Programs that stand in for others: they do what these do, and something of their own before."""

from __future__ import annotations

from pathlib import Path


def write_wrapper(path: Path, name: str, words: str, before: str) -> Path:
    """Write a program that runs ``before`` (shell) when one of the patterns ``words`` (``*-encrypt*|*excerpts*``) fits its
    arguments, and then what ``name`` does. Return its path."""
    path.write_text(f'#!/bin/sh\ncase "$*" in {words}) {before};; esac\nexec {name} "$@"\n')
    path.chmod(0o755)
    return path


def write_waiting(folder: Path, name: str = "openssl", words: str = "*-encrypt*") -> Path:
    """Write a program into a folder that leaves ``waits`` there when one of the patterns fits its arguments (openssl: when
    it is to encrypt), and does what ``name`` does when there is ``go``. Return its path."""
    wait = f'mkdir -p "{folder}/waits"; until [ -e "{folder}/go" ]; do sleep 0.05; done'
    return write_wrapper(folder / name, name, words, wait)


def write_lacking(folder: Path, name: str, word: str, other: str) -> Path:
    """Write a build of `name` into a folder that does not know ``word`` of its command line: it is run with ``other``
    instead, and what it lists is without the word. Return its path."""
    path = folder / name
    path.write_text(
        "#!/bin/bash\n"
        f'for word; do words+=("${{word//{word}/{other}}}"); done\n'
        f'{name} "${{words[@]}}" > >(grep -v -- {word})\nstatus=$?\nwait\nexit $status\n'
    )
    path.chmod(0o755)
    return path
