"""The site: the repository's Markdown pages where they lie, the notebook executed, the API from docstrings."""

import ast
import inspect
from importlib.metadata import version as installed
from types import ModuleType

from distcluster import deploy, job, pod_table

project = "distcluster"
author = copyright = "the distcluster maintainers"  # noqa: A001 - Sphinx's name
release = version = installed(project)

root_doc = "docs/index"
include_patterns = ["docs/**", "k8s/README.md", "jobs/demo/README.md", "*.md"]
exclude_patterns = [".*", "build", "runs"]

extensions = ["myst_nb", "sphinx.ext.autodoc", "numpydoc"]
myst_enable_extensions = ["deflist", "substitution"]
myst_heading_anchors = 4
nb_execution_mode = "force"  # what the site shows is what this version prints
nb_execution_raise_on_error = True
nb_execution_timeout = 600  # seconds of a cell; CI lets the tests go first
nb_merge_streams = True

autodoc_typehints = "none"  # numpydoc's sections say them in words
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # autodoc shows them

html_theme = "furo"
html_title = f"distcluster {release}"
html_extra_path = ["site"]


_TITLES = {
    "WorkersTable": "deploy.workers",
    "PlacementTable": "deploy.pods] and [deploy.pods.workers",
    "PodTable": "deploy.pods",
}


def _classes(module: ModuleType) -> list[ast.ClassDef]:
    return [each for each in ast.parse(inspect.getsource(module)).body if isinstance(each, ast.ClassDef)]


def job_keys() -> str:
    """Every key of a job file with its default and its docstring, as Markdown."""
    lines = []
    parsed = [(module, table) for module in (job, deploy, pod_table) for table in _classes(module)]
    for module, table in parsed:
        if not table.name.endswith("Table"):
            continue
        lines += [f"## [{_TITLES.get(table.name, table.name.removesuffix('Table').lower())}]", ""]
        fields = getattr(module, table.name).model_fields
        for key, after in zip(table.body, table.body[1:], strict=False):
            if isinstance(key, ast.AnnAssign) and isinstance(after, ast.Expr):
                field = fields[key.target.id]
                default = "required" if field.is_required() else f"`{field.get_default(call_default_factory=True)!r}`"
                said = " ".join(inspect.cleandoc(ast.literal_eval(after.value)).replace("``", "`").split())
                lines += [f"**`{key.target.id}`** · {default}", f": {said}", ""]
    return "\n".join(lines)


myst_substitutions = {"job_keys": job_keys()}
