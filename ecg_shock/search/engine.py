"""Run trainings in worker processes of Dask, on this machine or on the machines of a Dask scheduler.

All connections are encrypted, and both sides show a certificate, because whoever can connect to a scheduler or a worker
can run code.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from distributed import CancelledError, Client, Future, KilledWorker, Security

from ecg_shock.files import atomic_writer
from ecg_shock.search.tasks import TOPIC, Done, Task, WorkerError, end_process, request_stop, train
from ecg_shock.search.trials import RESULT_FILE
from ecg_shock.search.workers import local_workers

MAX_DEATHS = 3  # of the process of a training, without an epoch between them
TRAININGS_PER_PROCESS = 25
LOG_FILE = "worker.log"
START_TIMEOUT_S = 120
POLL_S = 2.0  # between two looks for new workers
EXIT_POLL_S = 0.01  # between two looks for the end of a process
CERTIFICATES = ("CA_FILE", "CLIENT__CERT", "CLIENT__KEY")

OnProgress = Callable[[Task, int, float | None], None]
IGNORE: OnProgress = lambda task, epoch, balanced_accuracy: None  # noqa: E731

_logger = logging.getLogger(__name__)


class Engine:
    """Worker processes, which start with the first training and end with the `with` block.

    Parameters
    ----------
    log : Path
        File to which workers on this machine append what they print.
    workers : int
        Number of worker processes on this machine, each of which runs one training at a time.
    scheduler : str, optional
        Address of a Dask scheduler, such as ``"tls://host:8786"``, whose workers replace those of this machine. The
        certificates are those of Dask's configuration.
    trainings_per_process : int
        Number of trainings after which a new process replaces a worker, because each training leaks memory.

    Raises
    ------
    ValueError
        If the address of the scheduler does not begin with ``tls://``, or if there are no certificates for it.
    """

    def __init__(
        self,
        log: Path,
        *,
        workers: int = 1,
        scheduler: str | None = None,
        trainings_per_process: int = TRAININGS_PER_PROCESS,
    ) -> None:
        self._log = log.absolute()
        self._workers = workers
        self._scheduler = scheduler
        self._trainings_per_process = trainings_per_process
        self._security = Security.temporary() if scheduler is None else _security_for(scheduler)
        self._client: Client | None = None
        self._numbers = itertools.count()
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    @property
    def remote(self) -> bool:
        """Whether the workers are those of a scheduler, which may be on other machines."""
        return self._scheduler is not None

    def run(
        self, tasks: Iterable[Task | None], on_progress: OnProgress = IGNORE
    ) -> Generator[tuple[Task, str | None], None, None]:
        """Run trainings, one in each worker, and yield those that have ended.

        Ctrl-C ends the trainings after their current epoch; a second Ctrl-C kills them.

        Parameters
        ----------
        tasks : iterable of Task or None
            The trainings. The next one is taken when a worker is free, after the results so far were yielded. None
            stands for one that can be taken only after the next result.
        on_progress : callable
            Called with a task, the epoch that it has completed, and the balanced accuracy; with 0 and None when it
            begins.

        Yields
        ------
        task : Task
            A training that has ended.
        failure : str or None
            If its process died `MAX_DEATHS` times without completing an epoch, a line that says so.

        Raises
        ------
        WorkerError
            If a file cannot be read or written, memory is short, or the connection to the scheduler is lost. Other
            errors of a training are raised as they are.
        KeyboardInterrupt
            After Ctrl-C, when the trainings have stopped.
        """
        waiting, tasks = deque[_Attempt](), iter(tasks)

        def next_one() -> _Attempt | None:
            waiting.extend(_Attempt(task) for task in itertools.islice(tasks, 0 if waiting else 1) if task)
            return waiting[0] if waiting else None

        if next_one() is None:
            return
        client = self._connect()
        news: SimpleQueue[Any] = SimpleQueue()  # events of `TOPIC`, futures that are done, and None for Ctrl-C
        running: dict[str, _Attempt] = {}
        stopping, last_seen = False, time.monotonic()
        client.subscribe_topic(TOPIC, lambda event: news.put(event[1]))
        try:
            with _stop_on_interrupt(news):
                while running or (not stopping and next_one()):
                    workers = len(client.nthreads())
                    if workers or self.remote:
                        last_seen = time.monotonic()
                    elif time.monotonic() - last_seen > START_TIMEOUT_S:
                        raise WorkerError(f"no worker process can be started; {self._log} may say why")
                    # No more trainings than workers: one that waited for a busy worker would die with it.
                    while len(running) < workers and not stopping and (attempt := next_one()):
                        future = self._submit(client, waiting.popleft())
                        running[future.key] = attempt
                        future.add_done_callback(news.put)
                    try:
                        item = news.get(timeout=POLL_S)
                    except Empty:
                        continue
                    if item is None:
                        stopping = True
                        client.run(request_stop, list(running), on_error="ignore")
                    elif isinstance(item, Future):
                        attempt, ended = running[item.key], self._has_ended(client, item, running[item.key])
                        del running[item.key]
                        if ended:
                            yield attempt.task, attempt.failure
                        else:
                            waiting.append(attempt)
                    elif attempt := running.get(item["key"]):
                        attempt.deaths = 0 if item["epoch"] else attempt.deaths
                        on_progress(attempt.task, item["epoch"], item["balanced_accuracy"])
        finally:
            if client.status == "running":
                client.unsubscribe_topic(TOPIC)
                if running:
                    client.run(request_stop, list(running), on_error="ignore")
                for attempt in [*running.values(), *waiting]:
                    self._forget(client, attempt)
        if stopping:
            raise KeyboardInterrupt

    def _connect(self) -> Client:
        """Connect to the scheduler, or start the workers of this machine, unless this was done before."""
        if self._client is not None:
            return self._client
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        try:
            address = self._scheduler or self._open.enter_context(
                local_workers(self._workers, self._security, self._log)
            )
        except RuntimeError as error:  # a process was killed while it started
            raise WorkerError(f"the worker processes cannot be started: {error}; run the same command again") from error
        client = Client(address, security=self._security, set_as_default=False)
        self._client = self._open.enter_context(client)
        if self.remote and not client.nthreads():
            _logger.warning("%s has no worker yet; waiting for the first", self._scheduler)
        return client

    def _submit(self, client: Client, attempt: _Attempt) -> Future:
        key = f"{attempt.task.name}-{attempt.task.digest}-{len(attempt.keys) if self.remote else next(self._numbers)}"
        attempt.keys.append(key)
        future = client.submit(train, attempt.task, self.remote, key=key)
        if self.remote:  # a killed run that is started again finds the training, or its result, by the key
            client.publish_dataset(future, name=key, override=True)
        return future

    def _forget(self, client: Client, attempt: _Attempt) -> None:
        for key in attempt.keys if self.remote else ():
            client.unpublish_dataset(key)

    def _has_ended(self, client: Client, future: Future, attempt: _Attempt) -> bool:
        """Return whether a training has ended; if it has, its files are in its folder, or `attempt.failure` is set."""
        task = attempt.task
        try:
            done: Done = future.result()
            future.release()
        except KilledWorker as error:
            attempt.deaths += 1
            _logger.warning("%s: its process died (%d of at most %d times)", task.name, attempt.deaths, MAX_DEATHS)
            if attempt.deaths == MAX_DEATHS:
                times = MAX_DEATHS * (error.allowed_failures + 1)  # a scheduler of its own tries again by itself
                attempt.failure = f"the process died {times} times in this training"
            if attempt.failure:
                self._forget(client, attempt)
            return attempt.failure is not None
        except CancelledError as error:
            raise WorkerError(
                f"the connection to the scheduler was lost ({error}); run the same command again to continue"
            ) from error
        except (OSError, MemoryError) as error:
            cause = str(error) or type(error).__name__
            raise WorkerError(
                f"{task.name}: {cause}; fix the cause and run the same command again to continue"
            ) from error
        if done.files is not None:
            task.folder.mkdir(parents=True, exist_ok=True)
            for name in sorted(done.files, key=lambda name: name == RESULT_FILE):  # the last one: it marks the end
                with atomic_writer(task.folder / Path(name).name) as file:
                    file.write(done.files[name])
            self._forget(client, attempt)
        if done.trainings >= self._trainings_per_process:
            kept = client.run(end_process, workers=[done.worker], on_error="ignore")
            while not kept and done.worker in client.nthreads():
                time.sleep(EXIT_POLL_S)
        return done.files is not None


@dataclass
class _Attempt:
    """A training, its keys so far, and the deaths of its process since its last epoch."""

    task: Task
    keys: list[str] = field(default_factory=list)
    deaths: int = 0
    failure: str | None = None


def _security_for(scheduler: str) -> Security:
    """Return the certificates of Dask's configuration."""
    if not scheduler.startswith("tls://"):
        raise ValueError(
            f"the scheduler {scheduler!r} is not encrypted, so that whoever reaches it can run code; start it with TLS "
            "certificates, and give tls://HOST:PORT"
        )
    security = Security(require_encryption=True)
    if not (security.tls_ca_file and security.tls_client_cert):
        names = ", ".join(f"DASK_DISTRIBUTED__COMM__TLS__{name}" for name in CERTIFICATES)
        raise ValueError(
            f"there are no certificates for {scheduler}; set {names}, or the same keys in Dask's configuration file"
        )
    return security


@contextlib.contextmanager
def _stop_on_interrupt(news: SimpleQueue[Any]) -> Iterator[None]:
    """At the first Ctrl-C put None into `news`; at the second raise KeyboardInterrupt."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread receives signals
        return

    def request_stop(signum: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _logger.warning("stopping after this epoch; press Ctrl-C again to stop at once")
        news.put(None)

    before = signal.signal(signal.SIGINT, request_stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
