"""The repository's own files, by real path."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINKED = ("dialects", "passes", "codegen", "runtime")


def python_files(*folders: str) -> list[Path]:
    """All Python files under ``folders`` of the repository; links are not followed."""
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")) if "build" not in path.parts]


def package_files() -> list[Path]:
    """The Python files of the package: those of `mpk_ir/` and of the four folders that it links to."""
    inside = [path for path in python_files("mpk_ir") if not set(path.relative_to(ROOT).parts[1:2]) & set(LINKED)]
    return [*inside, *python_files(*LINKED)]


def module_of(path: Path) -> str:
    """The name under which ``path`` is imported: `dialects/tg/base.py` is `mpk_ir.dialects.tg.base`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    full = parts if parts[0] == "mpk_ir" else ("mpk_ir", *parts)
    return ".".join(full[:-1] if full[-1] == "__init__" else full)
