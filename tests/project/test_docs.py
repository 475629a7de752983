"""What the documentation shows runs, and what it links to exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.project.files import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if BLOCK.search(page.read_text())], ids=name_of)
def test_python_blocks_run(page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(ROOT)
    namespace: dict[str, object] = {"__name__": "documentation"}
    for block in BLOCK.findall(page.read_text()):
        exec(compile(block, str(page), "exec", dont_inherit=True), namespace)
    if page.name == "README.md":
        text, _, ir = capsys.readouterr().out.partition("\n")
        assert text
        assert "sm.grid" in ir


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_lead_somewhere(page: Path):
    if "reference" in page.parts:
        pytest.skip("generated; the site build checks it")
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for match in LINK.finditer(text):
        target = match["target"].partition("#")[0]
        if target and "://" not in target:
            exists = (page.parent / target).exists() or Path(target).parent.name == "reference"
            assert exists, f"{name_of(page)} links to {target}"


def test_the_readme_example_is_short():
    (block,) = BLOCK.findall(ROOT.joinpath("README.md").read_text())
    assert len([line for line in block.splitlines() if line.strip()]) <= 15


def test_every_page_is_in_the_site():
    navigation = ROOT.joinpath("mkdocs.yml").read_text()
    for page in sorted((ROOT / "docs").rglob("*.md")):
        name = str(page.relative_to(ROOT / "docs"))
        assert f" {name}\n" in navigation, f"mkdocs.yml does not name {name}"
