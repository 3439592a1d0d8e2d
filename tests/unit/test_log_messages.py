"""docs/log-messages.md explains every line of the log from level warning upwards, and quotes no line that does not exist.

A message in the code and a quotation on the page are compared as texts in which ``…`` stands for each part that varies:
`%s`, `%.2f`, `{name}` in the code; `…`, `<error>` and a field such as `seconds=` on the page. A quotation explains a message
when both can describe the same line and have more than half of the words of the message in common, or four. Conversely,
each clause of a quotation must occur in a text of the code: by clause, because many lines are composed of two texts. Parts
of the text that vary may stand for at most two fifths of its words, as for `HTTP 413`.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from itertools import product
from pathlib import Path

import muxer

CODE = Path(muxer.__file__).parent
PAGE = CODE.parent / "docs" / "log-messages.md"
VARIES = "…"
LOG_METHODS = {"warning", "error", "critical", "exception", "log"}
# Functions that log a text of their caller, with the position or the name of that argument.
HELPERS = {"record_deviation": 1, "_warn_once": 0, "recover": 1, "IntentLog": "refused"}
# Lists whose texts are logged at the start.
LOGGED_LISTS = {"warnings", "advice"}  # and the lists in functions that end with ``warnings``
# Modules that log a text whose words are elsewhere: in a call of a helper, a function, a logged list, or an attribute
# `stop_warning`.
PASSING_ON = {
    "app/daemon.py",
    "app/service.py",
    "gir/deviations.py",
    "gir/listing.py",
    "journal/journal.py",
    "system/intent_log.py",
}
# The number of words of a long message that are enough to find it on the page.
MAX_NEEDED_WORDS = 4
# Words that a line takes over from a library.
FOREIGN_TEXTS = {"certificate verify failed"}

# The scope of constants.
ANY_MODULE = ast.Module([], [])


@cache
def parse_modules() -> dict[str, ast.Module]:
    return {path.relative_to(CODE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in CODE.rglob("*.py")}


def resolve_texts(node: ast.expr | None, scope: ast.AST) -> list[str]:
    """Return the texts that an expression can have, as far as constants and assignments within `scope` show them."""
    match node:
        case ast.Constant(value=str(text)):
            return [re.sub(r"%[-.\d]*[sdrf]|\{\w*(:[^}]*)?\}", VARIES, text)]
        case ast.JoinedStr(values=parts):
            return ["".join(texts) for texts in product(*(resolve_texts(part, scope) for part in parts))]
        case ast.FormattedValue(value=ast.Name() as value):
            return resolve_texts(value, scope)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [one + two for one in resolve_texts(left, scope) for two in resolve_texts(right, scope)]
        case ast.IfExp(body=one, orelse=two):
            return [*resolve_texts(one, scope), *resolve_texts(two, scope)]
        case ast.Call(func=ast.Attribute(value=value, attr="format")):
            return resolve_texts(value, scope)
        case ast.Name(id=name):
            assigned = find_assigned(ANY_MODULE if name.isupper() else scope).get(name, [])
            return [text for value in assigned for text in resolve_texts(value, scope)] or [VARIES]
    return [VARIES]


@cache
def find_assigned(scope: ast.AST) -> dict[str, list[ast.expr]]:
    """Return what is assigned to each variable in `scope`, or to each constant in any module."""
    found: dict[str, list[ast.expr]] = {}
    for part in parse_modules().values() if scope is ANY_MODULE else (scope,):
        for node in ast.walk(part):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                found.setdefault(node.targets[0].id, []).append(node.value)
    return found


def find_logged(node: ast.AST) -> list[list[ast.expr]]:
    """Return the messages that `node` logs, itself or through a helper, each with its arguments."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="log"), attr=method), args=args) if method in LOG_METHODS:
            return [args[1:] if method == "log" else args]
        case ast.Call(func=ast.Attribute(value=owner, attr="append"), args=[text]):
            return [[text]] if ast.unparse(owner).split(".")[-1] in LOGGED_LISTS else []
        case ast.FunctionDef(name=name) if name.endswith("warnings"):
            lists = [one for one in ast.walk(node) if isinstance(one, ast.List | ast.ListComp)]
            return [[text] for one in lists for text in (one.elts if isinstance(one, ast.List) else [one.elt])]
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name), args=args, keywords=keywords) if name in HELPERS:
            place = HELPERS[name]
            named = [one.value for one in keywords if one.arg == place]
            given = args[place : place + 1] if isinstance(place, int) else named
            return [[ast.BinOp(text, ast.Add(), ast.Constant(VARIES))] for text in given]
        case ast.Assign(targets=[ast.Name(id="stop_warning")], value=text):
            return [[text]]
    return []


@cache
def logged_messages() -> list[tuple[str, str]]:
    """Return the module and the text of each message; one without words is replaced by the texts of its arguments."""
    found = set()
    for module, tree in parse_modules().items():
        for scope in (one for one in ast.walk(tree) if isinstance(one, ast.FunctionDef | ast.ClassDef)):
            for node in ast.walk(scope):
                for message, *arguments in find_logged(node):
                    texts = resolve_texts(message, scope)
                    if not any(map(fixed_words, texts)):
                        of_arguments = [text for value in arguments for text in resolve_texts(value, scope)]
                        texts = [f"{VARIES}{text}{VARIES}" for text in of_arguments if fixed_words(text)] or texts
                    # A class does not see the variables of its methods.
                    if isinstance(scope, ast.FunctionDef) or isinstance(node, ast.Assign):
                        found |= {(module, text) for text in texts}
    return sorted(found)


def split_words(text: str) -> list[str]:
    """Return the words of a text and its parts that vary."""
    return re.findall(r"[^\W_]+|…", text)


def fixed_words(text: str) -> list[str]:
    return [word for word in split_words(text) if word != VARIES]


@cache
def quoted_lines() -> list[str]:
    """Return the quotations in the first column of the tables."""
    quoted = []
    for row in PAGE.read_text(encoding="utf-8").splitlines():
        if row.startswith("|"):
            quoted += re.findall(r"`([^`]+)`", row.split(" | ")[0])
    return quoted


def normalise_quotation(text: str) -> str:
    """Return a quotation without fields, and with `…` for codes and ``<error>``."""
    text = re.sub(r"MUX-\S+ ", f"{VARIES} ", text)
    return re.sub(r"<\w+>", VARIES, re.sub(r" \w+=\S*", "", text))


@cache
def quoted_words() -> list[list[str]]:
    return [split_words(normalise_quotation(line)) for line in quoted_lines()]


def count_shared_words(one: list[str], two: list[str]) -> int:
    """Return how many words two texts share when both can describe the same line, else a negative number."""

    @cache
    def best(i: int, j: int) -> float:
        if i == len(one) and j == len(two):
            return 0
        found = float("-inf")
        if i < len(one) and one[i] == VARIES:
            found = max(found, best(i + 1, j), best(i, j + 1) if j < len(two) else found)
        if j < len(two) and two[j] == VARIES:
            found = max(found, best(i, j + 1), best(i + 1, j) if i < len(one) else found)
        if i < len(one) and j < len(two) and one[i] == two[j] != VARIES:
            found = max(found, 1 + best(i + 1, j + 1))
        return found

    return int(max(best(0, 0), -1))


def is_explained(message: str) -> bool:
    words, needed = split_words(message), min(len(fixed_words(message)) // 2 + 1, MAX_NEEDED_WORDS)
    near = (line for line in quoted_words() if len(set(words) & set(line) - {VARIES}) >= needed)
    return any(count_shared_words(words, line) >= needed for line in near)


def test_the_page_explains_each_warning_and_error() -> None:
    assert [each for each in logged_messages() if fixed_words(each[1]) and not is_explained(each[1])] == []


def test_the_words_of_every_logged_text_are_found() -> None:
    assert {module for module, text in logged_messages() if not fixed_words(text)} == PASSING_ON


@cache
def code_texts() -> str:
    """Return the words of each text of the code that is no docstring, and the names of its classes; a line each."""
    nodes = [node for tree in parse_modules().values() for node in ast.walk(tree)]
    docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    strings = [one for one in nodes if isinstance(one, ast.Constant | ast.JoinedStr) and id(one) not in docstrings]
    texts = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    texts |= {text for node in strings for text in resolve_texts(node, node)}
    return "\n".join(("", *sorted({" ".join(split_words(text)) for text in texts if fixed_words(text)}), ""))


def is_in_code(clause: str) -> bool:
    words = split_words(clause)
    if clause.strip() in FOREIGN_TEXTS or " ".join(words) in code_texts():
        return True
    # The name of a step, and what became of it.
    if all(f"\n{word}\n" in code_texts() for word in words):
        return True
    padded, needed = [VARIES, *words, VARIES], len(set(words)) * 3 / 5
    near = (text.split() for text in code_texts().splitlines() if VARIES in text)
    near = (text for text in near if len(set(words) & set(text)) >= needed)
    return any(count_shared_words(padded, [VARIES, *text, VARIES]) >= needed for text in near)


def test_each_quotation_exists_in_the_code() -> None:
    clauses = {part for line in quoted_lines() for part in re.split(r"…|[;:] ", normalise_quotation(line))}
    assert [clause for clause in sorted(clauses) if not is_in_code(clause)] == []
