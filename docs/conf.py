"""How Sphinx builds this documentation: ``make docs``."""

from importlib.metadata import version as version_of

project = "NEATPy"
author = "The NEATPy developers"
copyright = author  # noqa: A001 - Sphinx's name
release = version_of("neatpy")
version = ".".join(release.split(".")[:2])

extensions = ["sphinx.ext.autodoc", "sphinx.ext.doctest", "sphinx.ext.viewcode"]
exclude_patterns = ["_build"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
add_module_names = False
# References are written out where they are meant, so that a name in prose needs no target.
nitpicky = False

html_theme = "furo"
html_title = f"NEATPy {release}"
