"""What can go wrong in the lab itself, as opposed to the refusals that it plays."""

from importlib import import_module
from typing import Any

REQUIREMENTS_FILE = "thirdparty/requirements-lab.txt"


class LabError(Exception):
    """The lab cannot do what it was asked to do; the text is one sentence for the person who runs it."""


def missing_module_error(name: str | None) -> LabError:
    """Given the name of a module that is not installed, return the error that says how to get it [our decision]."""
    return LabError(f"The lab needs the Python package {name}: install it with pip install -r {REQUIREMENTS_FILE}")


def import_needed(module: str) -> Any:
    """Given the name of a module that only the lab needs, return it. Raise LabError if it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise missing_module_error(error.name) from error
