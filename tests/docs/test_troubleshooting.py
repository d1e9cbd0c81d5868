"""The troubleshooting page quotes messages that exist, and leaves none out that a user can meet."""

from __future__ import annotations

import ast
import re
from functools import cache

from tests.conftest import ROOT
from tests.docs.reading import DOCS
from wsipipe import errors

NAMES = {name for name, value in vars(errors).items() if isinstance(value, type)}
PLACE = "\0"
ROW = re.compile(r"^\| `([^`]+)` \|", re.MULTILINE)
FEWEST = 12
"""Letters that a message must have of its own; what has fewer passes on another message."""
GENERIC = {"… is …; expected …", "… is … in … and …", "cannot read …", "cannot write …"}
"""Rows that explain many messages at once, and so prove nothing of any."""
OF_PROGRAMMERS = {
    "was closed; open it again to read",
    "a slide in memory needs uint8 levels",
    "damaged on purpose",
    "has no level",
    "a region of",
    "the grid is",
    "block is",
    "expected at least 1 px",
    "expected label maps of one size",
    "no image to score",
    "expected float32",
}
"""Messages that only a mistake in a Python program brings about."""


def text_of(node: ast.expr) -> str:
    """Return the text of a literal, placeholders as :data:`PLACE`."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.BinOp):
        return text_of(node.left) + text_of(node.right)
    return PLACE


@cache
def nodes() -> tuple[ast.AST, ...]:
    """Return every node of the package's code."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "wsipipe").rglob("*.py"))]
    return tuple(node for tree in trees for node in ast.walk(tree))


@cache
def literals() -> tuple[str, ...]:
    """Return every text in the package's code that may be a message, without backticks."""
    texts = {text_of(node) for node in nodes() if isinstance(node, ast.JoinedStr | ast.Constant)}
    return tuple(text.replace("`", "") for text in texts if len(text) >= FEWEST and "\n" not in text)


@cache
def raised() -> tuple[str, ...]:
    """Return the messages of all errors that the package raises, and that say something of their own."""
    calls = [node for node in nodes() if isinstance(node, ast.Call) and node.args]
    found = [text_of(c.args[0]) for c in calls if isinstance(c.func, ast.Name) and c.func.id in NAMES]
    return tuple(m.replace("`", "") for m in dict.fromkeys(found) if letters(m) >= FEWEST)


def letters(text: str) -> int:
    return len(re.sub(r"[^a-z]", "", text))


def matches(stem: str, message: str) -> bool:
    """Whether the words of *stem* stand in *message*, in order; ``…`` skips anything, placeholders among it."""
    parts, start = [part.strip() for part in stem.split("…")], 0
    for part in parts:
        start = message.find(part, start) + len(part)
        if start < len(part):
            return False
    return True


def stems() -> list[str]:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    return [stem for stem in ROW.findall(text) if not stem.isdigit()]


def test_a_quoted_message_exists() -> None:
    unknown = [stem for stem in stems() if not any(matches(stem, text) for text in literals())]
    assert not unknown, "no message of wsipipe reads so (any more); change docs/troubleshooting.md"


def test_a_message_is_explained() -> None:
    telling = [stem for stem in stems() if stem not in GENERIC]
    shown = {message: message.replace(PLACE, "…") for message in raised()}
    asked = [message for message in raised() if not any(part in shown[message] for part in OF_PROGRAMMERS)]
    unexplained = [shown[message] for message in asked if not any(matches(stem, message) for stem in telling)]
    assert not unexplained, "add a row for each to docs/troubleshooting.md"


def test_the_lists_are_not_empty_and_exceptions_are_needed() -> None:
    assert len(stems()) > 150 and len(raised()) > 150
    for part in OF_PROGRAMMERS:
        assert any(part in message for message in raised()), part


def test_exit_codes_are_those_of_the_errors() -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    raised_codes = {e.exit_code for e in vars(errors).values() if isinstance(e, type) and hasattr(e, "exit_code")}
    assert codes == raised_codes | {0, 9, 130}
