"""Words that this project does not use, and what to write instead: ``python -m tools.prose [FILE...]``.

It reads all text of the repository that people read: code with its comments and messages, documentation, scripts. A line
that needs such a word in its proper sense (as in a test that quotes one) ends with ``prose: ok``. Exit code 1 when it finds
any.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SUFFIXES = {".py", ".md", ".sh", ".sample", ".html", ".yml", ".toml"}
# A pattern, and what to write instead.
WORDS = {
    r"(?<![A-Za-z\"'=:+])(?<!--agent )(?<!account )nobody(?=[ _][a-z]|[.,:;] )": "no one; or name the role",
    r"(?i:\bwhoever\b|\bsomebody\b)": "a user who; or name the role",
    r"\bfor want of\b|\bsee to it\b": "because there is too little; ensure",
    r"\bbegun anew\b|\banew\b": "restarted, started again",
    r"\bso (many|much|long)\b(?! as| that|,)": "the number, N seconds",
    r"\bspoken to\b": "connects to, calls",
    r"\bleft-?overs\b": "leftover files",
    r"\bis none, \b|\bone that is none\b|\bNone for none\b": "does not exist; returns None when there is no ...",
    r"\b(MOST|LEAST|LONGEST)_[A-Z]+\b": "MAX_, MIN_",
}
PATTERNS = {re.compile(pattern): advice for pattern, advice in WORDS.items()}
EXEMPT = {"tools/prose.py", "LICENSE"}


def text_files() -> list[Path]:
    """Return the files of the repository that are checked."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [ROOT / name for name in listed if Path(name).suffix in SUFFIXES and name not in EXEMPT]


def find_words(path: Path) -> Iterator[str]:
    """Yield a line for each word of the list in a file: where it is, and what to write instead."""
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if line.rstrip(' >-#"').endswith("prose: ok"):
            continue
        for pattern, advice in PATTERNS.items():
            if match := pattern.search(line):
                yield f"{path.relative_to(ROOT)}:{number}: {match[0]!r}: write {advice}"


def main(argv: list[str]) -> int:
    """Check the named files, or all. Returns the exit code."""
    found = [
        line
        for path in ([Path(name).resolve() for name in argv] or text_files())
        if path.exists()
        for line in find_words(path)
    ]
    print("\n".join(found))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
