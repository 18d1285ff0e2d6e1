"""Markdown pages as something to run: their commands, files and scripts in order, their links, their generated parts.

A page says in comments what the eye need not see:

* ``<!-- file: NAME -->`` before a fenced block: the block is that file.
* ``<!-- run: COMMAND -->`` to ``<!-- /run -->``: the generator writes the command and what it prints between the two; what
  follows a bar, ``| 1-12 30-``, are the lines that are shown.
* ``<!-- NAME -->`` to ``<!-- /NAME -->``: what the generator makes under that name.

Commands of a page run in its order, all pages in one folder that holds copies of the examples. A line of a shell block that
ends in ``# exit code 3`` has to end so.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

ROOT: Final = Path(__file__).resolve().parents[1]
SKIPPED: Final = ("out", "dist", "build")
"""Folders, beside hidden ones, whose pages are not the project's."""
CARRIED: Final = ("examples", "tests/clusters/nccl", "tests/topo/formats")
"""What commands may name: copied into the folder where they run."""
WIDTH: Final = 110

RUN: Final = re.compile(r"<!-- run: (?P<command>[^|]*?)(?: \|(?P<shown>[^>]*?))? -->\n.*?<!-- /run -->", re.DOTALL)
FENCE: Final = re.compile(
    r"(?:<!-- file: (?P<file>\S+) -->\n)?^```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE
)
INLINE: Final = re.compile(r"(?<!`)`(podscale [^`]+)`(?!`)")
VOLATILE: Final = re.compile(r"^[\d,]+ strategies in .*?priced\s+per\s+second\n", re.DOTALL | re.MULTILINE)
"""What no two runs share: how long a sweep took."""
EXPECTED: Final = re.compile(r"#.*exit code (\d)")
OURS: Final = re.compile(r"^(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?podscale(?: |$)")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a page asks for: a `command` of podscale, a `file` to write, or `python` to run."""

    kind: str
    text: str
    name: str = ""
    code: int = 0


def pages() -> list[Path]:
    """Return every Markdown page of the project."""
    found = (path for path in ROOT.rglob("*.md") if not _hidden(path))
    return sorted(found)


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") or part in SKIPPED for part in path.relative_to(ROOT).parts[:-1])


def steps(text: str) -> Iterator[Step]:
    """Yield what a page asks for, in its order; commands in running text come where they stand."""
    found: list[tuple[int, Step]] = []
    fenced = list(FENCE.finditer(text))
    for block in fenced:
        if block["file"]:
            found.append((block.start(), Step("file", block["body"], block["file"])))
        elif block["kind"] == "python":
            found.append((block.start(), Step("python", block["body"])))
        elif block["kind"] in ("sh", "bash", ""):
            found += [(block.start(), step) for step in commands(block["body"])]
    for match in INLINE.finditer(text):
        within = any(block.start() < match.start() < block.end() for block in fenced)
        if not within and is_whole(match[1]):
            found.append((match.start(), Step("command", " ".join(match[1].split()))))
    yield from (step for _, step in sorted(found, key=lambda pair: pair[0]))


def commands(block: str) -> Iterator[Step]:
    """Yield the commands of podscale in a shell block."""
    for line in re.sub(r"\\\n\s*", "", block).splitlines():
        written = line.removeprefix("$ ").strip()
        if OURS.match(written):
            expected = EXPECTED.search(written)
            yield Step("command", written.split("  #")[0].strip(), code=int(expected[1]) if expected else 0)


def is_whole(said: str) -> bool:
    """Return whether a command in running text is meant to be typed: it has an argument, and no placeholder.

    >>> is_whole("podscale list models"), is_whole("podscale sweep"), is_whole("podscale topo FILE")
    (True, False, False)
    """
    words = said.split()
    return len(words) > 2 + (words[1] == "calibrate") and not any(
        word.isupper() or "…" in word or "FILE" in word for word in words
    )


@dataclass
class Folder:
    """A folder in which pages run: each distinct command once, its answer remembered until a file that it names changes."""

    path: Path
    said: dict[str, tuple[int, str]] = field(default_factory=dict)

    def prepare(self) -> None:
        """Copy what commands may name."""
        for name in CARRIED:
            shutil.copytree(ROOT / name, self.path / name, dirs_exist_ok=True)
        (self.path / "docs" / "pictures").mkdir(parents=True, exist_ok=True)

    def run(self, command: str) -> tuple[int, str]:
        """Return exit code and output of a command of podscale; what is wrong with it comes after the output."""
        if command not in self.said:
            self.said[command] = self._run(command)
        return self.said[command]

    def _run(self, command: str) -> tuple[int, str]:
        from podscale.cli import main

        words = shlex.split(command)
        given = dict(word.split("=", 1) for word in words if re.match(r"^[A-Z_]+=", word))
        args, _, kept = " ".join(map(shlex.quote, words[len(given) + 1 :])).partition(" '>' ")
        out, wrong = io.StringIO(), io.StringIO()
        with self.here(given), contextlib.redirect_stdout(out), contextlib.redirect_stderr(wrong):
            code = main(shlex.split(args))
        if kept:
            self.write(kept, out.getvalue())
        return code, out.getvalue() + wrong.getvalue()

    @contextlib.contextmanager
    def here(self, given: Mapping[str, str] | None = None) -> Iterator[None]:
        """Stand in the folder, without colours, as wide as a page."""
        held = {key: value for key, value in os.environ.items() if not key.startswith("PODSCALE_")}
        held |= {"NO_COLOR": "1", "COLUMNS": str(WIDTH), **(given or {})}
        held.pop("FORCE_COLOR", None)
        with contextlib.chdir(self.path), patch.dict(os.environ, held, clear=True):
            yield

    def write(self, name: str, text: str) -> None:
        """Write a file that a page shows."""
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists() and target.read_text(encoding="utf-8") == text:
            return
        target.write_text(text, encoding="utf-8")
        self.said = {command: said for command, said in self.said.items() if name not in command.split()}

    def play(self, script: str, names: dict[str, Any]) -> None:
        """Run Python that a page shows; the scripts of a page share their names."""
        with self.here(), contextlib.redirect_stdout(io.StringIO()):
            exec(compile(script, "page", "exec"), names)  # noqa: S102  (our own page)


def shown(output: str, ranges: str | None) -> str:
    r"""Return the lines that a page shows: ranges such as ``1-3 9-``, with … for what is left out.

    >>> shown("a\nb\nc\nd\n", "1 4-")
    'a\n…\nd\n'
    """
    plain = "\n".join(line.rstrip() for line in output.splitlines())
    lines = VOLATILE.sub("", plain + "\n").strip("\n").splitlines()
    if not (ranges or "").split():
        return "\n".join(lines) + "\n"
    picked: list[str] = []
    last = 0
    for each in (ranges or "").split():
        first, dash, end = each.partition("-")
        start, stop = int(first), (int(end) if end else len(lines)) if dash else int(first)
        picked += ["…"] * (start > last + 1) + lines[start - 1 : stop]
        last = stop
    return "\n".join(picked + ["…"] * (last < len(lines))) + "\n"


def filled(text: str, folder: Folder) -> str:
    """Return a page with the output of its commands as of today; the steps before a command run first."""
    names: dict[str, Any] = {}
    out, end = [], 0
    for match in RUN.finditer(text):
        prepare(text[end : match.start()], folder, names)
        command, ranges = match["command"].strip(), match["shown"]
        _, said = folder.run(command)
        bar = f" |{ranges}" if ranges else ""
        body = f"```sh\n{command}\n```\n\n```text\n{shown(said, ranges)}```"
        out += [text[end : match.start()], f"<!-- run: {command}{bar} -->\n{body}\n<!-- /run -->"]
        end = match.end()
    return "".join(out) + text[end:]


def prepare(text: str, folder: Folder, names: dict[str, Any]) -> None:
    """Write the files and run the commands of a part of a page."""
    for step in steps(text):
        do(step, folder, names)


def do(step: Step, folder: Folder, names: dict[str, Any]) -> None:
    """Do what a page asks for."""
    if step.kind == "file":
        folder.write(step.name, step.text)
    elif step.kind == "python":
        folder.play(step.text, names)
    elif not left_out(step.text):
        folder.run(step.text)


LEFT_OUT: Final[Mapping[str, str]] = {
    "validate training": "takes a quarter of a minute; tests/test_documents.py runs it",
    "explore": "serves until it is stopped; the tests of the explorer start it",
    "claim ": "runs a search for each case; tests/parallel/claims runs the claims, tests/podscale draws them",
    "--executor ray": "starts Ray; the tests of the executors do",
    "--address": "needs a cluster of machines",
    "which_wiring.yaml": "prices millions of strategies for a quarter of a minute; smaller sweeps are run",
    "--plan": "measures for some seconds; its functions have tests",
}
"""Part of a command -> why no test of the pages runs it."""


def left_out(command: str) -> str:
    """Return why a command is not run, or nothing."""
    return next((why for part, why in LEFT_OUT.items() if part in command), "")


# --- links -----------------------------------------------------------------------------------------------------------

LINK: Final = re.compile(r"(?<!`)!?\[[^\]]*\]\((?P<to>[^)\s]+)\)")
HEADING: Final = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)


def bare(text: str) -> str:
    """Return a page without its code, where brackets mean something else."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))


def anchors(text: str) -> set[str]:
    r"""Return the anchors of a page's headings, as GitHub makes them.

    >>> sorted(anchors("# A link\n## `zb-h1`, and more"))
    ['a-link', 'zb-h1-and-more']
    """
    found: set[str] = set()
    for heading in HEADING.findall(re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)):
        name = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        number = 0
        while (unique := f"{name}-{number}" if number else name) in found:
            number += 1
        found.add(unique)
    return found | set(re.findall(r'<a (?:name|id)="([^"]+)"', text))


def broken_links(page: Path) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    wrong = []
    for to in (match["to"] for match in LINK.finditer(bare(page.read_text(encoding="utf-8")))):
        if re.match(r"^[a-z]+:", to):
            continue
        name, _, anchor = to.partition("#")
        target = (page.parent / name).resolve() if name else page
        lost = not target.exists()
        if not lost and anchor and target.suffix == ".md":
            lost = anchor not in anchors(target.read_text(encoding="utf-8"))
        wrong += [to] * lost
    return wrong
