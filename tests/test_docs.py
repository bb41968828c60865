"""What the documentation points to exists, and the first page stays short."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("cluster/*.md"), *ROOT.glob("benchmarks/*.md")]
#: The most words of the README.
README_WORDS = 700


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_between_pages_leads_somewhere() -> None:
    broken = []
    for page in PAGES:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            if "://" in link:
                continue
            if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert not broken, "\n".join(broken)


def test_every_module_that_a_page_names_exists() -> None:
    missing = []
    for page in [ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]:
        folders = (ROOT, ROOT / "prognosis_dask", ROOT / "prognosis_dask" / "modelling")
        names = re.findall(r"`((?:[\w.]+/)+\w+\.py)\b", page.read_text(encoding="utf-8"))
        missing += [f"{page.name}: {name}" for name in names if not any((folder / name).exists() for folder in folders)]
    assert not missing, "\n".join(missing)


def test_the_readme_is_read_in_a_few_minutes() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= README_WORDS
