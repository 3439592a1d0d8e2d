"""Errors of the lab itself, as opposed to the error responses that it simulates."""

from importlib import import_module
from typing import Any

REQUIREMENTS_FILE = "thirdparty/requirements-lab.txt"


class LabError(Exception):
    """The lab cannot do what was requested; the text is one sentence for the user who runs it."""


def missing_module_error(name: str | None) -> LabError:
    """Return the error for a missing module, which names the command that installs it [our decision]."""
    return LabError(f"The lab needs the Python package {name}: install it with pip install -r {REQUIREMENTS_FILE}")


def import_needed(module: str) -> Any:
    """Import a module that only the lab needs. Raises LabError if it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise missing_module_error(error.name) from error
