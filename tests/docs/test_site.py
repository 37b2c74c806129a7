"""The documentation as a site: it builds without a warning, every page stands in it, and the citation is whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import yaml
from tests.support.runs import REPOSITORY

from rbft import __version__


def pages(nav: object) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    values = nav.values() if isinstance(nav, dict) else nav
    return [page for value in values for page in pages(value)]  # type: ignore[attr-defined]


def test_the_site_builds_and_asks_nothing_of_the_network(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    config = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())
    built = {
        path.relative_to(tmp_path / "site").with_suffix(".md").as_posix() for path in (tmp_path / "site").glob("*.html")
    }
    assert set(pages(config["nav"])) == {path.name for path in (REPOSITORY / "docs").glob("*.md")}
    assert set(pages(config["nav"])) <= built
    home = (tmp_path / "site" / "index.html").read_text()
    assert "fonts.googleapis" not in home and "cdn" not in home.lower()


def test_the_citation_names_the_paper() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (__version__, "Apache-2.0")
    paper = citation["preferred-citation"]
    assert paper["title"] == "RB-FT: Rationale-Bootstrapped Fine-Tuning for Video Classification"
    assert "2511.15923" in paper["url"] and len(paper["authors"]) == 10
