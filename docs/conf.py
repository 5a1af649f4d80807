"""How Sphinx builds the documentation: `make docs`."""

import lightning_opplan

project = "lightning-opplan"
author = "the authors of lightning-opplan"
release = version = lightning_opplan.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
default_role = "code"  # names in docstrings stand in single backticks

html_theme = "furo"
html_title = f"lightning-opplan {release}"
html_theme_options = {"top_of_page_buttons": []}
html_static_path = ["_static"]
html_js_files = ["accessible.js"]
