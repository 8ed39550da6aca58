"""How Sphinx builds this documentation: ``make docs``."""

import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "NEATPy"
author = "The NEATPy developers"
copyright = author  # noqa: A001 - Sphinx's name
try:
    release = version_of("neatpy")
except PackageNotFoundError:  # not installed: from the source tree, by PYTHONPATH
    from neatpy import __version__ as release
version = ".".join(release.split(".")[:2])

extensions = ["sphinx.ext.autodoc", "sphinx.ext.viewcode", "neatpy_tables"]
exclude_patterns = ["_build", "toy_stack"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
# References are written out where they are meant, so that a name in prose needs no target.
nitpicky = False

html_theme = "furo"
html_title = f"NEATPy {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
