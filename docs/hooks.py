"""What makes a site of pages that are written to be read in the source folder: those beside docs/ join it, links follow."""

from __future__ import annotations

import re
from os.path import relpath
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
# Pages outside docs/, by their place in the site.
PAGES = {
    "overview.md": "README.md",
    "SECURITY.md": "SECURITY.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "thirdparty.md": "thirdparty/README.md",
}
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)#]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside docs/."""
    for place, source in PAGES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Turn links between the two places into links of the site; of what is no page of it, only the words stay."""
    folder = (ROOT / PAGES.get(page.file.src_uri, f"docs/{page.file.src_uri}")).parent
    places = {(ROOT / source).resolve(): place for place, source in PAGES.items()}
    here = PurePosixPath(page.file.src_uri).parent

    def follow(match: re.Match[str]) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        path = (folder / target).resolve()
        if path.is_relative_to(ROOT / "docs"):
            return f"[{words}]({relpath(path.relative_to(ROOT / 'docs'), here)}{anchor})"
        if path in places:
            return f"[{words}]({relpath(places[path], here)}{anchor})"
        return words if path.exists() else match[0]

    return _LINK.sub(follow, markdown)
