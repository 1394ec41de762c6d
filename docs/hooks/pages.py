"""What lies beside the folder of pages: the root's pages, files that pages point to, folders in the navigation."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
ROOT_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
"""File of the root -> page of the site. Read there at each build, so that no copy is kept."""
STANDS_FOR = {"README.md": "index.md"}
"""File of the root -> the page that says the same."""
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
CODE = re.compile(r"(^```.*?^```|`[^`\n]+`|^ {4}.*?$)", re.DOTALL | re.MULTILINE)
EXTERNAL = re.compile(r"[a-z]+:")


def slug(text: str, separator: str = "-") -> str:
    """Name the anchor of a heading as GitHub does, so that a link holds in both places."""
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", separator)


def is_there(entry: str) -> bool:
    """Tell whether a line of the navigation can be kept: folders without pages and absent pages of the root cannot."""
    if entry.endswith("/"):
        return any((ROOT / "docs" / entry).glob("*.md"))
    names = {page: name for name, page in ROOT_PAGES.items()}
    return entry not in names or (ROOT / names[entry]).exists()


def expand(entry: Any) -> Any:
    """Put the pages of a folder where a line of the navigation names it: its index, then in the order of its links."""
    if isinstance(entry, dict):
        return {title: expand(value) for title, value in entry.items()}
    if isinstance(entry, list):
        kept = [line for line in entry if not isinstance(line, dict) or all(map(keeps, line.values()))]
        return [expand(line) for line in kept]
    if entry.endswith("/"):
        names = {f"docs/{entry}{path.name}" for path in (ROOT / "docs" / entry).glob("*.md")}
        index = f"docs/{entry}index.md"
        order = [index, *linked(index, (ROOT / index).read_text(encoding="utf-8"))] if index in names else []
        ordered = [name for name in dict.fromkeys(order) if name in names]
        return [name.removeprefix("docs/") for name in [*ordered, *sorted(names - set(ordered))]]
    return entry


def keeps(value: Any) -> bool:
    """Tell whether the value of a line is a list, or a page or folder that is there."""
    return not isinstance(value, str) or is_there(value)


@event_priority(100)
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Expand the navigation; name anchors as GitHub does."""
    config.nav = expand(config.nav)
    config.mdx_configs["toc"]["slugify"] = slug
    return config


def linked(page: str, text: str) -> list[str]:
    """Give the files of the repository, by path from its root, that a page (by path, too) points to."""
    found = []
    for part in CODE.split(text)[::2]:
        for match in LINK.finditer(part):
            path = match[2].partition("#")[0]
            if path and not EXTERNAL.match(path):
                found.append(posixpath.normpath(posixpath.join(posixpath.dirname(page), path)))
    return found


def site_path(path: str) -> str:
    """Give the place on the site of a file of the repository.

    A folder of `docs` becomes a page that lists it, and what lies elsewhere and is no page a text below `source`.
    """
    if path.startswith("docs/"):
        return path.removeprefix("docs/") + ("/index.md" if (ROOT / path).is_dir() else "")
    if path in ROOT_PAGES or path in STANDS_FOR:
        return (ROOT_PAGES | STANDS_FOR)[path]
    return f"source/{path}.txt"


def listing(path: Path) -> str:
    """Give a file's text, or the texts of a folder's files one after another."""
    if path.is_file():
        return path.read_text(encoding="utf-8")
    files = [file for file in sorted(path.rglob("*")) if file.suffix in {".py", ".md", ".toml"}]
    return "\n\n".join(f"# {file.relative_to(ROOT).as_posix()}\n\n{listing(file)}" for file in files)


def contents(folder: Path) -> str:
    """Give a page that links to the files of a folder."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return "\n".join([f"# Files in {folder.name}\n", *(f"- [{name}]({name})" for name in names)])


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the root's pages, and the files outside of `docs` that pages point to."""
    for name, page in ROOT_PAGES.items():
        if (ROOT / name).exists():
            files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    wanted = {
        target
        for file in files.documentation_pages()
        for target in linked(in_repository(file.src_uri), file.content_string)
    }
    for path in sorted(wanted):
        place = site_path(path)
        if place.startswith("source/") and (ROOT / path).exists():
            files.append(File.generated(config, place, content=listing(ROOT / path)))
        elif place.endswith("/index.md") and place not in files.src_uris:
            files.append(File.generated(config, place, content=contents(ROOT / path)))
    return files


def in_repository(page: str) -> str:
    """Give the path from the repository's root of the file that a page is made of."""
    names = {page: name for name, page in ROOT_PAGES.items()}
    return names.get(page, f"docs/{page}")


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links to where their files lie on the site."""
    here = page.file.src_uri
    folder = posixpath.dirname(in_repository(here))

    def moved(match: re.Match[str]) -> str:
        path, hash_sign, anchor = match[2].partition("#")
        if not path or EXTERNAL.match(path):
            return match[0]
        target = site_path(posixpath.normpath(posixpath.join(folder, path)))
        relative = posixpath.relpath(target, posixpath.dirname(here) or ".")
        return f"{match[1]}{relative}{hash_sign}{anchor}{match[3]}"

    parts = CODE.split(markdown)
    parts[::2] = [LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts)
