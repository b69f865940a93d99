"""The site: these pages, and the reference from the docstrings. `sphinx-build -W docs site` builds it strictly."""

import re
import tomllib
from pathlib import Path

_PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]

project = "GenAI Factory"
author = "the GenAI Factory authors"
release = version = _PROJECT["version"]
html_title = f"GenAI Factory {release}"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}

html_theme = "furo"
html_theme_options = {"sidebar_hide_name": False, "navigation_with_keys": True}
html_copy_source = False
html_show_sourcelink = False
pygments_style, pygments_dark_style = "friendly", "monokai"
copybutton_exclude = ".linenos, .gp, .go"

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence", "fieldlist"]

default_role = "code"  # docstrings write `name` as Markdown does
autodoc_default_options = {"members": True, "inherited-members": False, "show-inheritance": True}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_use_rtype = False


_OUTSIDE = {"ARCHITECTURE.md": "architecture.md", "CHANGELOG.md": "changelog.md", "README.md": "index.md"}
_LINK = re.compile(r"\]\((?:\.\./)+([A-Z]+\.md)(#[\w-]+)?\)")


def _pages_of_the_root(app, docname, source):
    """Lead links to the files beside this folder to the pages that show them."""
    depth = "../" * docname.count("/")
    source[0] = _LINK.sub(lambda found: f"]({depth}{_OUTSIDE[found[1]]}{found[2] or ''})", source[0])


def _where_it_is_exported(app, env, node, contnode):
    """Lead a name to the package that exports it: annotations have the module that defines it."""
    if node.get("refdomain") != "py":
        return None
    domain, name = env.get_domain("py"), node["reftarget"].rpartition(".")[2]
    exported = sorted(full for full in domain.objects if full.startswith("shared_libs.") and full.endswith(f".{name}"))
    shortest = min(exported, key=lambda full: full.count("."), default=None)
    if shortest is None or name[:1].islower():
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", shortest, node, contnode)


def setup(app):
    app.connect("source-read", _pages_of_the_root)
    app.connect("missing-reference", _where_it_is_exported)
