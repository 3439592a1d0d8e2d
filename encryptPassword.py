"""Stores the passwords of muxer.cfg in an encrypted keystore: ``python encryptPassword.py``, in the folder of muxer.cfg.

The guide runs it in the folder ``muxer/``, where an installation has a copy of it; in the source it lies beside that
folder. A script's own folder is first on Python's search path; inside the package, our modules would shadow others there.
So the folder that holds the package takes its place before anything else is imported.
"""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_TOP = _HERE.parent if (_HERE / "muxer_process.py").is_file() else _HERE
sys.path[:] = [str(_TOP), *(entry for entry in sys.path if Path(entry or ".").resolve() != _HERE)]

import argparse  # noqa: E402
import getpass  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import warnings  # noqa: E402
from collections.abc import Sequence  # noqa: E402

from muxer.config.keystore import KEYSTORE_FILE, open_keystore, save_keystore  # noqa: E402
from muxer.config.schema import all_options  # noqa: E402
from muxer.errors import ConfigError, Problem  # noqa: E402

EXIT_OK, EXIT_CONFIG, EXIT_INTERRUPTED = 0, 2, 130
ASKED_AGAIN = 3
SECRETS = {section: (section, name) for section, name, option in all_options() if option.secret}
LINE = f"must be SECTION=VALUE, with a value, and once for a section: {', '.join(SECRETS)}; nothing was changed"


def main(argv: Sequence[str]) -> int:
    """Given the arguments, do what they say and return the exit code: 0 done, 2 refused, 130 stopped by Ctrl-C."""
    os.umask(0o077)
    try:
        return _run(_parser().parse_args(argv))
    except ConfigError as error:
        for problem in error.problems:
            sys.stderr.write(f"encryptPassword.py: {problem}\n")
        return EXIT_CONFIG
    except (KeyboardInterrupt, EOFError):
        sys.stderr.write("\nStopped; nothing was changed.\n")
        return EXIT_INTERRUPTED


def _run(arguments: argparse.Namespace) -> int:
    folder = _folder(arguments.config_file)
    stored = dict(open_keystore(folder))
    if arguments.list:
        print(*map(_shown, sorted(stored)), sep="\n", end="\n" if stored else "")
    elif arguments.remove is not None:
        _remove(folder, stored, arguments.remove)
    else:
        _store(folder, stored, _from_stdin() if arguments.stdin else _from_terminal())
    return EXIT_OK


def _folder(config_file: str | None) -> Path:
    """Return the folder of the keystore: that of muxer.cfg, by default the working directory (the guide)."""
    path = Path(config_file or "muxer.cfg").absolute()
    if config_file is not None and not path.is_file():
        raise ConfigError([Problem(f"--config-file {path}", "is not a file")])
    return path.parent


def _shown(name: tuple[str, str]) -> str:
    return "[{}] {}".format(*name)


def _save(folder: Path, values: dict[tuple[str, str], str]) -> None:
    """Replace what is stored; Ctrl-C comes too late from here on, so that "nothing was changed" is always true."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    save_keystore(folder, values)


def _remove(folder: Path, stored: dict[tuple[str, str], str], section: str) -> None:
    name = SECRETS.get(section.lower(), (section, ""))
    if name not in stored:
        known = ", ".join(sorted(section for section, _ in stored)) or "nothing"
        raise ConfigError([Problem(f"--remove {section}", f"there is no such password in the keystore; it holds: {known}")])
    del stored[name]
    _save(folder, stored)
    print(f"Removed from {folder / KEYSTORE_FILE}: {_shown(name)}")


def _store(folder: Path, stored: dict[tuple[str, str], str], given: dict[tuple[str, str], str]) -> None:
    if not given:
        print("Nothing was entered; nothing was changed.")
        return
    _save(folder, {**stored, **given})
    print(f"Stored in {folder / KEYSTORE_FILE}: {', '.join(map(_shown, given))}")
    print("Leave these options empty in muxer.cfg: a value there is used instead.")
    if os.name == "posix":
        print("Only this account can read the keystore: the muxer must run as the same one.")


def _from_terminal() -> dict[tuple[str, str], str]:
    """Ask for every password. Raise :class:`ConfigError` where that cannot be done unseen."""
    no_terminal = ConfigError([Problem("no terminal", "passwords are asked for on a terminal only; see --stdin")])
    if sys.stdin is None or not sys.stdin.isatty():
        raise no_terminal
    warnings.simplefilter("error", getpass.GetPassWarning)
    try:
        answers = {name: _ask(_shown(name)) for name in SECRETS.values()}
    except getpass.GetPassWarning:
        raise no_terminal from None
    return {name: value for name, value in answers.items() if value}


def _ask(shown: str) -> str:
    """Return what is entered twice, empty when nothing is."""
    for _ in range(1 + ASKED_AGAIN):
        value = _hidden(f"{shown} (empty = skip): ", shown)
        if not value or _hidden("  the same again: ", shown) == value:
            return value
        print("The two are not the same.", file=sys.stderr)
    raise ConfigError([Problem(shown, "was never repeated correctly; nothing was changed")])


def _hidden(prompt: str, shown: str) -> str:
    try:
        return getpass.getpass(prompt)
    except UnicodeError:
        raise ConfigError([Problem(shown, "is not in the character set of this terminal; nothing was changed")]) from None


def _from_stdin() -> dict[tuple[str, str], str]:
    """Return what the lines SECTION=VALUE of standard input say. Raise :class:`ConfigError` unless all can be used."""
    data = sys.stdin.buffer.read() if sys.stdin else b""
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise ConfigError([Problem("standard input", "is not UTF-8 text")]) from None
    given: dict[tuple[str, str], str] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        if text := line.removesuffix("\r"):
            name, value = _read_line(text)
            if name is None or not value or name in given:
                problems.append(Problem(f"standard input, line {number}", LINE))
            else:
                given[name] = value
    if problems or not given:
        raise ConfigError(problems or [Problem("standard input", f"has no line; each {LINE}")])
    return given


def _read_line(text: str) -> tuple[tuple[str, str] | None, str]:
    """Return which option a line is for, None when there is no such option, and everything after the first ``=``."""
    section, _, value = text.partition("=")
    return SECRETS.get(section.strip().lower()), value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="encryptPassword.py",
        description="Asks for the passwords of muxer.cfg and stores them in an encrypted keystore beside it.",
        allow_abbrev=False,
    )
    parser.add_argument("--config-file", metavar="FILE", help="muxer.cfg; default: that of the working directory")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--stdin", action="store_true", help="read lines SECTION=VALUE instead of asking (UTF-8)")
    action.add_argument("--list", action="store_true", help="name what is stored, without the values")
    action.add_argument("--remove", metavar="SECTION", help=f"remove the password of a section: {', '.join(SECRETS)}")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
