"""``[report.names]``: who gives the clusters names."""

import importlib
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from pydantic import field_validator, model_validator

from distcluster.errors import JobError
from distcluster.table import Table
from distcluster.url import Url

PROMPT = """\
These texts are typical of one group of a larger collection. Words that are more frequent in it than elsewhere: {words}

{items}

Answer with a name for the group, of five words at most, and with nothing else."""


class NamesTable(Table):
    """``[report.names]``: a language model, or a function, that names clusters; without this table nobody is asked.

    It is sent the words and the typical items of every cluster, nothing else.
    """

    model: str | None = None
    """The model's name at an API like OpenAI's: ``pip install 'distcluster[names]'``."""
    url: Url = Url("https://api.openai.com/v1")
    """The API's base address, such as http://localhost:11434/v1."""
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the API's key; it may be unset where none is wanted."""
    function: str | None = None
    """Instead of a model: "module:function", which is given the prompt and gives the name."""
    prompt: str = PROMPT
    """What is asked; {words} and {items} are filled in."""

    @field_validator("prompt")
    @classmethod
    def _fillable(cls, prompt: str) -> str:
        try:
            prompt.format(words="", items="")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError("must hold no braces but those of {words} and {items}") from error
        return prompt

    @model_validator(mode="after")
    def _one_of_them(self) -> "NamesTable":
        if (self.model is None) == (self.function is None):
            raise ValueError("wants one of model and function")
        if self.function is not None and not all(self.function.partition(":")):
            raise ValueError('function must be "module:function"')
        return self

    @property
    def by(self) -> str:
        """Who names, for a reader."""
        return self.function or f"{self.model} at {self.url}"


def require_namer(table: NamesTable) -> None:
    """Refuse a table whose function or package is not there: before the work, not after it.

    Raises
    ------
    JobError
    """
    if table.function is not None:
        named_function(table.function)
    elif find_spec("openai") is None:
        raise JobError("report.names.model needs the package openai: pip install 'distcluster[names]'")


def named_function(name: str) -> Callable[[str], str]:
    """The function of "module:function", looked for in the current directory, too.

    Raises
    ------
    JobError
        When it is not there.
    """
    module, _, attribute = name.partition(":")
    before = list(sys.path)
    sys.path.append(str(Path.cwd()))
    try:
        function: Callable[[str], str] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise JobError(f"report.names.function: {name} cannot be imported: {error}.") from error
    finally:
        sys.path[:] = before
    return function
