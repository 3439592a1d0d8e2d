"""Error codes: each keeps its meaning, and docs/errors.md explains all of them."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest

from muxer import errors
from muxer.errors import Code, ConfigError, MediaError, MuxerError, Permanent, Problem, Transient, error_code, format_error
from muxer.status import error_help

ROOT = Path(__file__).resolve().parents[2]
# Published codes: codes may be added here but never changed.
PUBLISHED = {
    "MUX-101": "CONFIGURATION",
    "MUX-201": "NO_RESPONSE",
    "MUX-202": "INTERNAL_ERROR",
    "MUX-203": "UNREADABLE_RESPONSE",
    "MUX-204": "TLS",
    "MUX-205": "BROKE_OFF",
    "MUX-206": "READBACK_MISMATCH",
    "MUX-207": "NOT_STORED",
    "MUX-208": "NO_FOLDER",
    "MUX-219": "STORAGE_SETUP",
    "MUX-211": "ACCESS_DENIED",
    "MUX-212": "AUTHENTICATION_FAILED",
    "MUX-213": "FORBIDDEN",
    "MUX-214": "PATH_FORBIDDEN",
    "MUX-215": "NO_RCS",
    "MUX-216": "NO_DECRYPT_PERMISSION",
    "MUX-217": "FOREIGN_SERVER",
    "MUX-218": "S3_OPTIONS",
    "MUX-220": "UNKNOWN_CENTER",
    "MUX-221": "MEDIA_NOT_FOUND",
    "MUX-222": "MEDIA_INCOMPLETE",
    "MUX-231": "NO_RESOURCES",
    "MUX-232": "DISK_FULL",
    "MUX-241": "STORED_BY_OTHER_MUXER",
    "MUX-251": "NO_CERTIFICATE",
    "MUX-261": "STOPPED",
    "MUX-301": "REQUEST_REJECTED",
    "MUX-302": "NOT_FOUND",
    "MUX-303": "ALREADY_EXISTS",
    "MUX-304": "QUERY_INCOMPLETE",
    "MUX-311": "METADATA",
    "MUX-312": "NO_START_TIME",
    "MUX-313": "NO_LOCATION",
    "MUX-314": "BAD_DESCRIPTOR",
    "MUX-315": "NO_OVERLAP",
    "MUX-316": "TOO_MUCH",
    "MUX-317": "NO_SCREEN",
    "MUX-321": "MEDIA",
    "MUX-322": "EMPTY_FILE",
    "MUX-323": "NO_MEDIA",
    "MUX-324": "TRUNCATED",
    "MUX-325": "NO_VIDEO",
    "MUX-326": "NO_AUDIO",
    "MUX-327": "NO_FRAME_TIMES",
    "MUX-328": "NOT_VERIFIED",
    "MUX-329": "DAMAGED",
    "MUX-331": "TOOL",
    "MUX-341": "ENCRYPTION",
    "MUX-342": "BAD_CERTIFICATE",
    "MUX-351": "UNKNOWN_ORDER",
    "MUX-352": "NEVER_FINISHED",
    "MUX-401": "SYSTEM",
    "MUX-901": "UNEXPECTED",
}
TYPES = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, MuxerError)]
FAMILIES = (MuxerError, Transient, Permanent)


def test_no_code_changes_its_meaning() -> None:
    assert {str(code): code.name for code in Code} == PUBLISHED


def test_the_document_matches_the_program() -> None:
    assert (ROOT / "docs" / "errors.md").read_text(encoding="utf-8") == error_help.render_page()
    assert list(error_help.HELP_BY_CODE) == list(Code)


@pytest.mark.parametrize("kind", [item for item in TYPES if item not in FAMILIES])
def test_each_type_has_a_separate_code(kind: type[MuxerError]) -> None:
    assert kind.usual_code is not Code.UNEXPECTED
    assert [one for one in TYPES if one.usual_code is kind.usual_code] == [kind]


def test_each_code_is_used() -> None:
    used = {kind.usual_code.name for kind in TYPES}
    for path in (ROOT / "muxer").rglob("*.py"):
        if path.name not in ("errors.py", "remedies.py"):
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            names = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
            used |= {name.attr for name in names if name.value.id == "Code"}  # type: ignore[attr-defined]
    assert used | {"SYSTEM", "UNEXPECTED"} == {code.name for code in Code}


def test_an_error_may_have_a_finer_code_than_its_type() -> None:
    assert MediaError("the file is empty", code=Code.EMPTY_FILE).code == "MUX-322"
    assert MediaError("it is broken").code == "MUX-321"
    assert ConfigError([Problem("[htcc] base_uri", "is required")]).code == "MUX-101"


@pytest.mark.parametrize(
    ("error", "code"),
    [(OSError(), "MUX-401"), (MemoryError(), "MUX-401"), (ValueError(), "MUX-901"), (KeyError(), "MUX-901")],
)
def test_errors_of_other_libraries_have_codes_too(error: Exception, code: str) -> None:
    assert error_code(error) == code


def test_an_error_is_reported_with_code_type_and_message() -> None:
    assert format_error(MediaError("s.mp4: it is empty", code=Code.EMPTY_FILE)) == "MUX-322 MediaError: s.mp4: it is empty"
    assert error_help.help_for("MUX-322") == error_help.HELP_BY_CODE[Code.EMPTY_FILE].remedy
    assert error_help.help_for("") == error_help.HELP_BY_CODE[Code.UNEXPECTED].remedy
