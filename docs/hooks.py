"""What makes a site of pages that are written to be read in the source folder: those beside docs/ join it, links follow."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
# Pages outside docs/, by their place in the site, which is that in the source folder.
PAGES = ("README.md", "SECURITY.md", "CHANGELOG.md", "thirdparty/README.md")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside docs/, and leave no two of one name."""
    for page in PAGES:
        files.append(File.generated(config, page, abs_src_path=str(ROOT / page)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links between the two places into links of the site; of what is no page of it, only the words stay."""
    name = page.file.src_uri
    folder = (ROOT / name).parent if name in PAGES else (ROOT / "docs" / name).parent

    def follow(match: re.Match[str]) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = (folder / target).resolve()
        place = path.relative_to(ROOT / "docs" if path.is_relative_to(ROOT / "docs") else ROOT).as_posix()
        if files.get_file_from_path(place) is None:
            return words if path.exists() else match[0]
        ups = name.count("/")
        return f"[{words}]({'../' * ups}{place}{anchor})"

    return _LINK.sub(follow, markdown)
