"""What the README and the documentation show runs as shown, and what they point to exists."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

REPO = Path(__file__).resolve().parents[1]
PAGES = sorted(p.relative_to(REPO).as_posix() for p in [*REPO.glob("*.md"), *(REPO / "docs").rglob("*.md")]
               if "_build" not in p.parts)  # fmt: skip

FENCE = re.compile(r"^(?P<fence>```+)(?P<info>.*)\n(?P<body>(?:.*\n)*?)(?P=fence)[ \t]*$", re.MULTILINE)
LINK = re.compile(r"(?P<image>!?)\[[^\]]*\]\((?P<target>[^)\s]+)\)")


class Block(NamedTuple):
    """One fenced block of Python: ``file`` is its caption, for a block that is a file of its own."""

    line: int
    code: str
    file: str | None


def read(page: str) -> str:
    return (REPO / page).read_text("utf-8")


def blocks(page: str) -> list[Block]:
    """The page's Python: ```` ```python ```` is run, a captioned code-block is a file for what follows."""
    text, found = read(page), []
    for match in FENCE.finditer(text):
        info, body = match["info"].strip(), match["body"]
        line = text.count("\n", 0, match.start("body")) + 1
        if info == "python":
            found.append(Block(line, body, None))
        elif info == "{code-block} python":
            caption, _, code = body.partition("\n\n")
            named = re.fullmatch(r":caption: (\S+\.py)", caption)
            if not named:
                pytest.fail(f"{page}:{line}: expected ':caption: file.py' and an empty line, got {caption!r}")
            found.append(Block(line + 2, code, named[1]))
    return found


def headings(page: str) -> set[str]:
    """Anchors of a page's headings: lower case, spaces to dashes, punctuation dropped."""
    text = FENCE.sub("", read(page))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


WITH_CODE = [page for page in PAGES if blocks(page)]
FIRST = ("README.md", "docs/getting-started.md")


def test_the_pages_are_found() -> None:
    assert {"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/index.md"} <= set(PAGES)
    assert {*FIRST, "docs/add-a-model.md", "docs/add-an-engine.md"} <= set(WITH_CODE)


@pytest.mark.parametrize("page", WITH_CODE)
def test_code_is_sound_python(page: str) -> None:
    for block in blocks(page):
        try:
            ast.parse(block.code)
        except SyntaxError as error:
            pytest.fail(f"{page}:{block.line + (error.lineno or 1) - 1}: {error.msg}", pytrace=False)


def as_script(page: str) -> str:
    """The page's blocks in order, each on the lines it has in the page: a traceback names the page's line."""
    lines: list[str] = []
    for block in blocks(page):
        if block.file is None:
            lines += [""] * (block.line - 1 - len(lines)) + block.code.splitlines()
    return "\n".join(lines) + "\n"


def shortened(script: str) -> str:
    """The same script with runs too short to mean anything: does it run at all?"""
    most = {"num_steps": 30, "num_warmup": 30, "num_samples": 60, "num_draws": 20}
    counts = re.compile(rf"\b({'|'.join(most)})=(\d+)")
    return counts.sub(lambda m: f"{m[1]}={min(int(m[2]), most[m[1]])}", script)


def run(page: str, script: str, folder: Path) -> None:
    """The page's code in a process and a folder of its own."""
    for block in blocks(page):
        if block.file is not None:
            target = folder / block.file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.code, "utf-8")
    file = folder / "the_page.py"
    file.write_text(script, "utf-8")
    done = subprocess.run(
        [sys.executable, file.name], cwd=folder, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{page}, by line:\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("page", FIRST)
def test_code_runs_with_short_runs(page: str, tmp_path: Path) -> None:
    script = shortened(as_script(page))
    assert script.count("\n") == as_script(page).count("\n")
    assert script != as_script(page)
    run(page, script, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE)
def test_code_runs_as_shown(page: str, tmp_path: Path) -> None:
    run(page, as_script(page), tmp_path)


def links(page: str) -> list[tuple[str, bool]]:
    """Targets of links and images outside code, without those on the web."""
    text = FENCE.sub("", read(page))
    found = [(match["target"], bool(match["image"])) for match in LINK.finditer(text)]
    return [(target, image) for target, image in found if not re.match(r"[a-z]+:", target)]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_images_lead_somewhere(page: str) -> None:
    for target, image in links(page):
        path, _, anchor = target.partition("#")
        found = (REPO / page).parent / path if path else REPO / page
        assert found.exists(), f"{page} points to {target}, which does not exist"
        if image:
            assert found.read_bytes().startswith(b"\x89PNG"), f"{page}: {target} is no PNG"
        if anchor:
            there = found.resolve().relative_to(REPO).as_posix()
            assert anchor in headings(there), f"{page} points to {target}: there is no such heading"


def test_every_page_is_in_the_table_of_contents() -> None:
    index = read("docs/index.md")
    listed = {line.strip() for body in re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL) for line in
              body.splitlines() if line.strip() and not line.startswith(":")}  # fmt: skip
    pages = {page.removeprefix("docs/").removesuffix(".md") for page in PAGES if page.startswith("docs/")}
    assert listed == pages - {"index"}


def test_the_readme_names_the_two_commands() -> None:
    text = read("README.md")
    for command in ("make demo", "make test", "pip install -c constraints.txt"):
        assert command in text
