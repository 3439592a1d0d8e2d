"""The Python packages that the muxer needs, with their versions as in pyproject.toml: another one would fail later."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, version

from muxer.errors import Problem
from muxer.system.exit_codes import EXIT_CONFIG

# The lowest version of each package, and the first that is too new, if any.
PACKAGES = {
    "boto3": ("1.40", ""),
    "cheroot": ("11", ""),
    "cryptography": ("44", ""),
    "httpx": ("0.27", ""),
    "jinja2": ("3.1", ""),
    "prometheus-client": ("0.22", ""),
    "publicsuffixlist": ("1.0", ""),
    "python-dateutil": ("2.9", ""),
    "requests": ("2.32.3", ""),
    "rich": ("14", ""),
    "urllib3": ("2.2", ""),
    "webdav4": ("0.11", "0.12"),
}
FLEET_PACKAGES = {"dramatiq": ("2.2", "3"), "pika": ("1.3", "2")}


def find_package_problems(is_fleet: bool) -> list[Problem]:
    """Return one problem for each package that is missing or of an unsuitable version; `is_fleet`: also those of a fleet."""
    needed = PACKAGES | FLEET_PACKAGES if is_fleet else PACKAGES
    return [
        Problem(f"Python package {name}", mismatch)
        for name, (lowest, limit) in needed.items()
        if (mismatch := _find_mismatch(name, lowest, limit))
    ]


def report_import_error(error: ImportError) -> int:
    """Write to stderr which package is missing and how to install it; return the exit code. Raises errors of our modules."""
    if (error.name or "muxer").partition(".")[0] == "muxer":
        raise error
    missing = "".join(f"  {problem}\n" for problem in find_package_problems(is_fleet=False)) or f"  {error}\n"
    sys.stderr.write(f"The Recording Muxer cannot start:\n{missing}  (note) install the packages: {package_advice(False)}\n")
    return EXIT_CONFIG


def package_advice(is_fleet: bool) -> str:
    """Return how to install the packages."""
    return f"{sys.executable} -m pip install -r thirdparty/requirements{'-fleet' if is_fleet else ''}.txt"


def _find_mismatch(name: str, lowest: str, limit: str) -> str:
    """Return what is installed and what is needed; empty when they fit."""
    wanted = f"{lowest} or later{f' and below {limit}' if limit else ''} is needed"
    try:
        installed = str(version(name))  # "None" for the remains of an interrupted pip
    except PackageNotFoundError:
        return f"it is not installed; {wanted}"
    if _split(lowest) <= _split(installed) and not (limit and _split(limit) <= _split(installed)):
        return ""
    return f"{installed} is installed, {wanted}"


def _split(text: str) -> list[int]:
    """Return the leading numbers of a version, without zeros at the end."""
    numbers: list[int] = []
    for part in text.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    while numbers and not numbers[-1]:
        numbers.pop()
    return numbers
