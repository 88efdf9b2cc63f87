"""Worker processes of Dask on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import LocalCluster, Security, Status, WorkerPlugin
from tornado.ioloop import PeriodicCallback

from ecg_shock.models.cnn import import_keras

MAX_THREADS = 4  # of TensorFlow in a process; with more, such small networks are not faster
REVIVAL_MS = 2000
SETTINGS: dict[str, Any] = {
    "distributed.scheduler.allowed-failures": 0,  # `Engine` counts them
    "distributed.scheduler.worker-ttl": None,  # a laptop may sleep
    # Dask would give up a worker for good that is starting again so long after an earlier start.
    "distributed.deploy.lost-worker-timeout": "1000 days",
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
}


@contextlib.contextmanager
def local_workers(number: int, security: Security, log: Path) -> Iterator[LocalCluster]:
    """Start a scheduler and worker processes, which only this process can connect to, and which print to `log`.

    The processors are divided among the workers, unless the environment says how many threads TensorFlow uses.
    """
    environment = {
        "TF_NUM_INTRAOP_THREADS": str(max(1, min(MAX_THREADS, CPU_COUNT // number))),
        "TF_NUM_INTEROP_THREADS": "1",
    }
    with (
        dask.config.set(SETTINGS),
        LocalCluster(
            n_workers=number,
            threads_per_worker=1,
            memory_limit=0,  # none, so that nothing is written to disk
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            security=security,
            # Given to the process and not to the scheduler, so that it is set up before the scheduler knows it.
            plugins=(LocalProcess(log, import_keras),),
            env={name: value for name, value in environment.items() if name not in os.environ},
        ) as cluster,
    ):
        revival = PeriodicCallback(lambda: _revive(cluster), REVIVAL_MS)
        cluster.loop.add_callback(revival.start)
        yield cluster


async def _revive(cluster: LocalCluster) -> None:
    """Start the processes again that were killed while they started, which their nannies do not see."""
    for nanny in list(cluster.workers.values()):
        if nanny.status == Status.running and not nanny.is_alive():
            await nanny.instantiate()


class LocalProcess(WorkerPlugin):
    """Prepare a worker process before it takes trainings.

    Ctrl-C, which a terminal sends to all its processes, is kept from it, and its output is appended to a file. Then it
    calls `load`, which imports TensorFlow. Because this takes many seconds, it must not be part of a training: if the
    process is killed in the meantime, this would count as a death of a training that has not begun.
    """

    def __init__(self, log: Path, load: Callable[[], object]) -> None:
        self._log = log
        self._load = load

    def setup(self, worker: Any) -> None:
        """Set up a worker before it connects."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with self._log.open("ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        self._load()

    def teardown(self, worker: Any) -> None:
        """End the process at once: every epoch is saved, and Python takes seconds to unload TensorFlow."""
        os._exit(0)
