"""The commands behind every claim about speed and quality; each prints a table and writes ``--json FILE``.

Some machines export a kernel family for OpenBLAS, users do not: it is taken out before NumPy loads the library.
"""

import os

os.environ.pop("OPENBLAS_CORETYPE", None)
