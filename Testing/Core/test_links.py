"""Links of the documents lead to files and headings that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("Docs/**/*.md"), *ROOT.glob("DualTrack*/**/*.md")]
#: [text](target), and ![text](target); targets with a scheme are no files.
LINK = re.compile(r"\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]+))?\)")


def prose(path):
    """A document without its blocks and pieces of code."""
    return re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(path):
    """What links to headings of a document may name, as GitHub makes it of their texts."""
    found = set()
    for title in re.findall(
        r"^#+ +(.*?) *$", re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S), re.M
    ):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title)
        name = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        number = next(n for n in range(len(found) + 1) if (f"{name}-{n}" if n else name) not in found)
        found.add(f"{name}-{number}" if number else name)
    return found


def dead(path):
    """The links of a document that lead nowhere."""
    for target, anchor in LINK.findall(prose(path)):
        place = path.parent / target if target else path
        if not place.exists() or (anchor and anchor not in anchors(place)):
            yield f"{target}#{anchor}" if anchor else target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_link_to_a_file_or_a_heading_is_dead(path):
    assert list(dead(path)) == []


def test_a_dead_link_is_found(tmp_path):
    page = tmp_path / "a.md"
    page.write_text(
        "# One, two\n## One, two\n[a](#one-two) [b](#one-two-1) [c](a.md#one-two) [d](https://x.org/y#z)\n"
        "`[e](code.md)` [f](none.md) [g](#three) [h](a.md#three) ![i](none.png)\n```\n# no-heading\n```\n"
        "[j](#no-heading)\n"
    )
    assert list(dead(page)) == ["none.md", "#three", "a.md#three", "none.png", "#no-heading"]
