"""Package versions and instruction level: what bits depend on besides the input and the job.

numba and faiss come with the functions that ask them: whoever only looks at a run imports neither.
"""

import platform
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np
import threadpoolctl
from threadpoolctl import ThreadpoolController, threadpool_info

_PACKAGES = (
    "distcluster",
    "faiss-cpu",
    "llvmlite",
    "numba",
    "numpy",
    "pynndescent",
    "scikit-learn",
    "scipy",
    "umap-learn",
)


@cache
def environment() -> dict[str, str]:
    """Everything besides input, job and seed that the bytes of a result may depend on.

    Returns
    -------
    dict of str to str
        Package versions, and the instruction level that each numerical library has chosen in this process:
        numpy's dispatch targets, OpenBLAS's kernel family, faiss's SIMD level, numba's target processor. Two
        processes with equal dicts give equal bytes.
    """
    import faiss
    import llvmlite.binding
    import numba
    import scipy.linalg  # noqa: F401 - it has an OpenBLAS of its own, which is to be seen in every process

    facts = {name: version(name) for name in _PACKAGES}
    facts["machine"] = platform.machine()
    facts["numpy SIMD"] = " ".join(np.show_config(mode="dicts")["SIMD Extensions"]["found"])
    # faiss ships an OpenBLAS of its own, but no result here comes from it.
    facts["OpenBLAS kernels"] = " ".join(
        sorted({lib["architecture"] for lib in threadpool_info() if "scipy_openblas" in str(lib.get("prefix"))})
    )
    facts["faiss SIMD"] = faiss.SIMDConfig.get_level_name()
    facts["numba target"] = numba.config.CPU_NAME or llvmlite.binding.get_host_cpu_name()
    if numba.config.CPU_FEATURES:
        facts["numba features"] = numba.config.CPU_FEATURES
    return facts


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """One line for every fact that differs, naming both values."""
    return [
        f"{name}: {expected.get(name, 'absent')} expected, {found.get(name, 'absent')} here"
        for name in sorted(expected.keys() | found.keys())
        if expected.get(name) != found.get(name)
    ]


def pin_to_one_thread() -> None:
    """Pin BLAS, OpenMP, faiss and numba to one thread, from the calling thread, and assert it.

    Sums over several threads depend on their number. Some libraries keep the number per thread: what a worker's main
    thread sets does not reach the thread that runs a task, so every task calls this. The pins stay: one task that
    lifted them on leaving would lift them under another task of the same process.
    """
    import numba

    with _borrowed.lock:
        _borrowed.stays = True
        numba.set_num_threads(1)  # first: it may load another OpenMP
        _pin(_libraries(len(sys.modules)))


@lru_cache(maxsize=1)
def _libraries(_n_modules: int) -> ThreadpoolController:
    """The libraries with threads, looked for anew when modules were imported: a task may have loaded another one.

    To look takes 4 ms, which every task of a small job felt.
    """
    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """The same for a while, in a process that is somebody else's: lifted when the last thread that is here leaves."""
    import faiss
    import numba

    of_numba, of_faiss = numba.get_num_threads(), faiss.omp_get_max_threads()
    libraries = ThreadpoolController()
    with _borrowed.lock:
        _borrowed.users += 1
        if _borrowed.users == 1:  # BLAS has one number for the process
            _let_any_thread_set()
            _borrowed.blas = libraries.select(user_api="blas").limit(limits=1)
    openmp = libraries.select(user_api="openmp").limit(limits=1)  # one for each thread
    try:
        _pin(libraries)
        yield
    finally:
        with _borrowed.lock:
            _borrowed.users -= 1
            if not _borrowed.stays:
                openmp.restore_original_limits()
                numba.set_num_threads(of_numba)
                faiss.omp_set_num_threads(of_faiss)
                if _borrowed.users == 0:
                    _let_any_thread_set()
                    _borrowed.blas.restore_original_limits()
                    _let_any_thread_set()


class _Borrowed:
    """Who has pinned this process: some threads for a while, from what it had before; or a task, for good."""

    def __init__(self) -> None:
        self.lock, self.users, self.stays = threading.Lock(), 0, False
        self.blas: Any = None


_borrowed = _Borrowed()


def _pin(libraries: ThreadpoolController) -> None:
    import faiss
    import numba

    numba.set_num_threads(1)
    _let_any_thread_set()
    libraries.limit(limits=1)
    faiss.omp_set_num_threads(1)
    busy = [lib["filepath"] for lib in libraries.info() if lib["num_threads"] != 1]
    if busy or faiss.omp_get_max_threads() != 1 or numba.get_num_threads() != 1:
        raise RuntimeError(f"could not pin these libraries to one thread: {', '.join(busy) or 'faiss or numba'}")


def _let_any_thread_set() -> None:
    """Since threadpoolctl 3.8 the thread that has set OpenBLAS's number first is the only one that can."""
    clear = getattr(getattr(threadpoolctl, "OpenBLASController", None), "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)
