"""Wrapper programs: they perform an action and then act like the real program."""

from __future__ import annotations

from pathlib import Path


def write_wrapper(path: Path, name: str, words: str, before: str) -> Path:
    """Write a program that runs `before` and then the program `name`; return its path.

    `before` is shell code. It runs when the arguments match one of the patterns `words` (``*-encrypt*|*excerpts*``)."""
    path.write_text(f'#!/bin/sh\ncase "$*" in {words}) {before};; esac\nexec {name} "$@"\n')
    path.chmod(0o755)
    return path


def write_waiting(folder: Path, name: str = "openssl", words: str = "*-encrypt*") -> Path:
    """Write a program that waits for a file `go` and then runs the program `name`; return its path.

    When the arguments match one of the patterns (openssl: when it encrypts), it creates the file `waits` in the folder."""
    wait = f'mkdir -p "{folder}/waits"; until [ -e "{folder}/go" ]; do sleep 0.05; done'
    return write_wrapper(folder / name, name, words, wait)


def write_lacking(folder: Path, name: str, word: str, other: str) -> Path:
    """Write a build of `name` into a folder that does not support the argument `word`; return its path.

    The real program runs with `other` instead, and `word` is missing from the lists that it prints."""
    path = folder / name
    path.write_text(
        "#!/bin/bash\n"
        f'for word; do words+=("${{word//{word}/{other}}}"); done\n'
        f'{name} "${{words[@]}}" > >(grep -v -- {word})\nstatus=$?\nwait\nexit $status\n'
    )
    path.chmod(0o755)
    return path
