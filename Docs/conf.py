"""The documentation as a site: `make docs` builds it in site/ with Sphinx; a warning is an error.

Pages are the files of this folder, README.md and CHANGELOG.md; Docs/python/ takes its text from the docstrings.
"""

import json
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import DualTrackCore  # noqa: E402

project = "DualTrack for 3D Slicer"
copyright = "the DualTrack for 3D Slicer contributors"
release = version = DualTrackCore.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "furo"
html_title = f"{project} {release}"
html_logo = "../DualTrack.png"
html_theme_options = {"sidebar_hide_name": True}
html_copy_source = False
exclude_patterns = ["schemas"]
# The notebook is run while the site is built, and an error in it is one of the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_default_options = {"members": True}
napoleon_google_docstring, napoleon_numpy_docstring = True, False

#: Files of the project that are pages of the site, by the page.
PAGES = {"overview": "README.md", "changes": "CHANGELOG.md"}
#: [text](target#anchor) of a file; targets with a scheme are no files.
LINK = re.compile(r"\]\((?!\w+:|#)([^)\s#]+)(#[^)\s]+)?\)")


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", read_page)
    app.connect("autodoc-process-docstring", keep_colon, priority=400)


def read_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Put README and changelog in the place of their pages; links lead to pages, or to where the code is kept."""
    if page in PAGES:
        source[0] = (ROOT / PAGES[page]).read_text(encoding="utf-8")
    path = Path(app.env.doc2path(page)) if page not in PAGES else ROOT / PAGES[page]
    if path.suffix != ".md":
        return
    source[0] = LINK.sub(lambda link: f"]({address(link[1], path)}{link[2] or ''})", source[0])


def keep_colon(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Keep napoleon from taking what stands before a colon for the type of a property."""
    if what in ("attribute", "data", "property"):
        lines.insert(0, "")


def address(target: str, path: Path) -> str:
    """Where a link to the file `target` in the file `path` leads on the site."""
    place = path.parent.joinpath(target).resolve()
    if not place.exists():
        return target  # Sphinx says so
    found = place.relative_to(ROOT).as_posix()
    for page, made in PAGES.items():
        if found == made:
            return f"/{page}.md"
    if found.startswith("Docs/") and place.is_file():
        return "/" + found.removeprefix("Docs/")
    kept = json.loads((ROOT / "DualTrack.json").read_text(encoding="utf-8"))["scm_url"].removesuffix(".git")
    return f"{kept}/blob/main/{found}"
