"""Stores the passwords of muxer.cfg in an encrypted keystore: ``python encryptPassword.py``, in the folder of muxer.cfg.

The guide runs it in the folder ``muxer/``, where an installation has a copy; in the source it is next to that folder. The
folder of a script comes first on Python's search path, where the modules of the package would shadow others. So the folder
that holds the package replaces it before any other import.
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
from collections.abc import Iterable, Sequence  # noqa: E402

from muxer.system.packages import report_import_error  # noqa: E402

try:
    from muxer.config.file import read_file
    from muxer.config.keystore import KEYSTORE_FILE, locked_keystore, open_keystore, save_keystore
    from muxer.config.schema import all_options
    from muxer.errors import ConfigError, Problem
    from muxer.log.terminal import escape_unencodable_output
    from muxer.system import files
except ImportError as error:
    sys.exit(report_import_error(error))

EXIT_OK, EXIT_CONFIG, EXIT_INTERRUPTED = 0, 2, 130
MAX_PROMPT_RETRIES = 3
SECRETS = {section: (section, name) for section, name, option in all_options() if option.secret}
LINE = f"must be SECTION=VALUE, once for each section and with a value (sections: {', '.join(SECRETS)}); nothing was changed"


def main(argv: Sequence[str]) -> int:
    """Run the command and return the exit code: 0 done, 2 refused, 130 stopped by Ctrl-C."""
    os.umask(0o077)
    escape_unencodable_output()
    try:
        return _run(_create_parser().parse_args(argv))
    except ConfigError as error:
        for problem in error.problems:
            sys.stderr.write(f"encryptPassword.py: {problem}\n")
        return EXIT_CONFIG
    except ImportError as error:  # The package that encrypts is loaded when it is needed.
        return report_import_error(error)
    except (KeyboardInterrupt, EOFError):
        sys.stderr.write("\nStopped; nothing was changed.\n")
        return EXIT_INTERRUPTED


def _run(arguments: argparse.Namespace) -> int:
    config = _config_path(arguments.config_file)
    folder = config.parent
    if arguments.config_file is None:
        _check_folder(folder)
    stored = open_keystore(folder)
    if arguments.list:
        print(*map(_format_option, sorted(stored)), sep="\n", end="\n" if stored else "")
    elif arguments.remove is not None:
        _remove_password(folder, stored, arguments.remove)
    else:
        given = _read_stdin() if arguments.stdin else _prompt_for_all()
        _check_values(given)
        _store_passwords(config, stored, given)
    return EXIT_OK


def _config_path(config_file: str | None) -> Path:
    """Return the path of muxer.cfg, by default in the working directory (guide)."""
    path = Path(config_file or "muxer.cfg").absolute()
    if config_file is not None and not _is_file(path):
        raise ConfigError([Problem(f"--config-file {path}", "is not a file")])
    return path


def _is_file(path: Path) -> bool:
    try:
        return files.is_file(path)
    except OSError as error:  # A folder above it is closed to this account.
        raise ConfigError([Problem(str(path), f"{error.strerror}; nothing was changed")]) from error


def _check_folder(folder: Path) -> None:
    """Raise ConfigError when there is no muxer.cfg in `folder`: a muxer would not find the keystore there."""
    path = folder / "muxer.cfg"
    if not _is_file(path):
        advice = "run this in the folder of muxer.cfg, or name the file with --config-file; nothing was changed"
        raise ConfigError([Problem(str(path), f"does not exist; {advice}")])


def _check_values(given: dict[tuple[str, str], str]) -> None:
    """Raise ConfigError when the muxer could not start with a value, which no text contains."""
    problems = []
    for section, name, option in all_options():
        if (section, name) in given:
            try:
                option.parse(given[section, name])
            except ValueError as error:
                problems.append(Problem(_format_option((section, name)), f"{error}; nothing was changed"))
    if problems:
        raise ConfigError(problems)


def _format_option(name: tuple[str, str]) -> str:
    return "[{}] {}".format(*name)


def _change_values(
    folder: Path, given: dict[tuple[str, str], str], removed: Sequence[tuple[str, str]] = ()
) -> list[tuple[str, str]]:
    """Change the keystore and return the options that it holds then.

    It is read again, because another process may have changed it since. Ctrl-C is ignored as soon as it is locked, so that
    "nothing was changed" is always true.
    """
    with locked_keystore(folder):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        values = {name: value for name, value in {**open_keystore(folder), **given}.items() if name not in removed}
        save_keystore(folder, values)
    return list(values)


def _remove_password(folder: Path, stored: Iterable[tuple[str, str]], section: str) -> None:
    name = SECRETS.get(section.lower(), (section, ""))
    if name not in stored:
        names = ", ".join(sorted(section for section, _ in stored)) or "nothing"
        raise ConfigError([Problem(f"--remove {section}", f"the keystore has no such password; it holds: {names}")])
    left = _change_values(folder, {}, removed=[name])
    print(f"Removed from {folder / KEYSTORE_FILE}: {_format_option(name)}")
    _print_content(left)


def _store_passwords(config: Path, stored: Iterable[tuple[str, str]], given: dict[tuple[str, str], str]) -> None:
    folder = config.parent
    if not given:
        print("Nothing was entered; nothing was changed.")
        _print_content(stored)
        return
    stored = _change_values(folder, given)
    print(f"Stored in {folder / KEYSTORE_FILE}: {', '.join(map(_format_option, given))}")
    _print_content(stored)
    print("The muxer reads it at its start: restart it.")
    print(f"Leave these options empty in {config.name}: a value there takes precedence.")
    if shadowed := _options_in_file(config, stored):
        print(f"It has a value now, which is used instead: {', '.join(map(_format_option, shadowed))}. Remove it there.")
    if os.name == "posix":
        print("Only this account can read the keystore: run the muxer with the same account.")


def _options_in_file(config: Path, stored: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return those of the `stored` options that have a value in muxer.cfg; none when that cannot be read."""
    try:
        file = read_file(config, [], [])
    except ConfigError:
        return []
    return [(section, name) for section, name in sorted(stored) if (one := file.get(section, {}).get(name)) and one.text]


def _print_content(stored: Iterable[tuple[str, str]]) -> None:
    """Print which options the keystore holds now, never a value."""
    print(f"It holds now: {', '.join(map(_format_option, sorted(stored))) or 'nothing'}")


def _prompt_for_all() -> dict[tuple[str, str], str]:
    """Ask for every password. Raises ConfigError when they would be visible."""
    no_terminal = ConfigError([Problem("no terminal", "the passwords can be entered on a terminal only; see --stdin")])
    if sys.stdin is None or not sys.stdin.isatty():
        raise no_terminal
    warnings.simplefilter("error", getpass.GetPassWarning)
    try:
        values = {name: _prompt_twice(_format_option(name)) for name in SECRETS.values()}
    except getpass.GetPassWarning:
        raise no_terminal from None
    return {name: value for name, value in values.items() if value}


def _prompt_twice(option: str) -> str:
    """Return the value that was entered twice, empty when the option is skipped."""
    for _ in range(1 + MAX_PROMPT_RETRIES):
        value = _prompt_hidden(f"{option} (empty = skip): ", option)
        if not value or _prompt_hidden("  repeat it: ", option) == value:
            return value
        print("The two values differ.", file=sys.stderr)
    raise ConfigError([Problem(option, "was not repeated correctly; nothing was changed")])


def _prompt_hidden(prompt: str, option: str) -> str:
    try:
        return getpass.getpass(prompt)
    except UnicodeError:
        raise ConfigError([Problem(option, "is not in the character set of this terminal; nothing was changed")]) from None


def _read_stdin() -> dict[tuple[str, str], str]:
    """Parse the lines SECTION=VALUE of standard input. Raises ConfigError when one is malformed."""
    data = sys.stdin.buffer.read() if sys.stdin else b""
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise ConfigError([Problem("standard input", "is not UTF-8 text")]) from None
    given: dict[tuple[str, str], str] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        if text := line.removesuffix("\r"):
            name, value = _parse_line(text)
            if name is None or not value or name in given:
                problems.append(Problem(f"standard input, line {number}", LINE))
            else:
                given[name] = value
    if problems or not given:
        raise ConfigError(problems or [Problem("standard input", f"is empty; each line {LINE}")])
    return given


def _parse_line(text: str) -> tuple[tuple[str, str] | None, str]:
    """Return the option of a line, None when there is no such option, and the text after the first ``=``."""
    section, _, value = text.partition("=")
    return SECRETS.get(section.strip().lower()), value


def _create_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="encryptPassword.py",
        description="Asks for the passwords of muxer.cfg and stores them in an encrypted keystore next to it.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config-file", metavar="FILE", help="path of muxer.cfg (default: muxer.cfg in the working directory)"
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--stdin", action="store_true", help="read lines SECTION=VALUE (UTF-8) from standard input")
    action.add_argument("--list", action="store_true", help="list the stored options, without the values")
    action.add_argument("--remove", metavar="SECTION", help=f"remove the password of a section: {', '.join(SECRETS)}")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
