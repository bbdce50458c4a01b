"""Hand over what a worker holds before its pod goes: the preStop hook of worker pods.

A worker that is only told to stop hands nothing over, and what others wait for is computed again.
"""

import argparse
import asyncio
import os
import sys

from distributed import Client


async def retire(name: str, timeout_seconds: float) -> list[str]:
    """Move a worker's results to other workers, and give it no new tasks.

    Parameters
    ----------
    name : str
        The worker's, as ``dask worker --name`` set it.
    timeout_seconds : float
        How long it may take, connecting included.

    Returns
    -------
    list of str
        Addresses of the workers that were retired: none when the scheduler does not know the name.

    Raises
    ------
    TimeoutError, OSError
        When the scheduler, which the environment names, does not answer in time.
    """
    async with asyncio.timeout(timeout_seconds), Client(asynchronous=True, timeout=timeout_seconds) as client:
        # The worker itself stays: kubelet ends it when this hook returns.
        return list(await client.scheduler.retire_workers(names=[name], close_workers=False, remove=True))


def main() -> None:
    """Retire the worker of this pod; whoever reads the pod's events sees why it failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds")
    seconds = parser.parse_args().timeout
    try:
        retired = asyncio.run(retire(os.environ["DASK_WORKER_NAME"], seconds))
    except (OSError, TimeoutError) as error:
        sys.exit(f"could not hand over: {type(error).__name__}: {error}")
    if not retired:
        sys.exit(f"could not hand over: the scheduler knows no worker {os.environ['DASK_WORKER_NAME']}")


if __name__ == "__main__":
    main()
