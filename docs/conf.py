"""The documentation: Sphinx, MyST and numpydoc, and a gallery that runs every program of ``examples`` on the phantom.

    pip install -e '.[test,docs]' && sphinx-build -W --keep-going docs build/site

The examples run in a temporary folder, against an emulator of the Allen API and an S3 server, both on loopback.
"""

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

os.environ["MPLBACKEND"] = "agg"
sys.path.insert(0, str(Path(__file__).parent))

import gallery_inputs
import site_checks

project = "atlaszarr"
author = "the authors of atlaszarr"
release = version = version_of("atlaszarr")
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/*.py", "gallery/*.ipynb", "gallery/*.md5", "sg_execution_times.rst"]
html_static_path = ["_static"]
html_css_files = ["width.css"]
language = "en"

# A name in single backticks is a link where the reference has it.
default_role = "py:obj"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

autodoc_typehints = "none"  # numpydoc's sections have them
autodoc_member_order = "bysource"
autosummary_generate = False
numpydoc_show_class_members = False
numpydoc_attributes_as_param_list = True

html_theme = "pydata_sphinx_theme"
html_title = "atlaszarr"
html_sidebars = {"**": ["globaltoc.html"]}  # all pages, under the captions of index.md
html_theme_options = {
    "navbar_center": [],
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
}
html_show_sourcelink = False
html_copy_source = False

sphinx_gallery_conf = {
    "examples_dirs": str(gallery_inputs.INPUTS.folder),
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "run_stale_examples": True,  # some read what others write into a folder that is new each time
    "within_subsection_order": "gallery_inputs.position",
    "reset_argv": "gallery_inputs.arguments",
    "abort_on_example_error": False,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "min_reported_time": 1e6,
    "remove_config_comments": True,
}


def setup(app):
    """Start the servers before the gallery is made, and check the links and pictures at the end."""
    app.connect("builder-inited", lambda _: gallery_inputs.INPUTS.start(), priority=1)  # the gallery has 500
    app.connect("build-finished", site_checks.finished, priority=900)
