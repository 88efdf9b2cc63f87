"""Trainings on the workers of a scheduler: separate processes, caches of their own, and TLS."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import Security

TIMEOUT_S = 90
DRIVER = """
import sys
from pathlib import Path
import toy
from ecg_shock.search.engine import Engine
from ecg_shock.search.tasks import Task

def show(task, epoch, balanced_accuracy):
    print(task.name, epoch, flush=True)

folder = Path(sys.argv[2])
tasks = (Task(name, folder / name, 5, toy.train, (5, False, None, float(sys.argv[3]))) for name in "abc")
with Engine(folder / "worker.log", scheduler=sys.argv[1]) as engine:
    for task, failure in engine.run(tasks, show):
        print(task.name, "ended", failure, flush=True)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Write certificates, and return the environment variables of all processes."""
    found = Security.temporary()
    names = {"CA_FILE": found.tls_ca_file}
    for role in ("CLIENT", "SCHEDULER", "WORKER"):
        names |= {f"{role}__CERT": found.tls_client_cert, f"{role}__KEY": found.tls_client_key}
    settings = {"COMM__TIMEOUTS__TCP": "12s"}
    for name, content in names.items():
        (tmp_path / name).write_text(content)
        settings[f"COMM__TLS__{name}"] = str(tmp_path / name)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    return {**os.environ, "PYTHONPATH": path} | {f"DASK_DISTRIBUTED__{name}": value for name, value in settings.items()}


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., None]]:
    """Start a process of Dask, which ends with the test."""
    started = []

    def _start(kind: str, *options: str, machine: str = "", within: tuple[str, ...] = ()) -> None:
        command = [*within, sys.executable, "-m", f"distributed.cli.dask_{kind}", *options]
        cache = {"ECG_SHOCK_CACHE": str(tmp_path / "cache" / machine)}
        with (tmp_path / f"{kind}{machine}.log").open("ab") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment | cache, cwd=tmp_path))

    yield _start
    for process in started:
        process.terminate()
    for process in started:
        process.wait(TIMEOUT_S)


def free_port(host: str) -> int:
    """Return a port that no process uses."""
    with socket.create_server((host, 0)) as server:
        return server.getsockname()[1]


def start_worker(start: Callable[..., None], address: str, machine: str, within: tuple[str, ...] = ()) -> None:
    """Start a worker with its own cache, as on another machine."""
    options = ("--nthreads", "1", "--memory-limit", "0", "--no-dashboard")
    start("worker", address, *options, machine=machine, within=within)


def trained(folder: Path) -> str:
    """Return the epochs that a training has logged."""
    return (folder / "epochs.txt").read_text().replace("\n", " ")


@pytest.fixture
def drive(tmp_path: Path, environment: dict[str, str]) -> Callable[..., list[str]]:
    """Run the trainings from another process, until it ends or `stop` says of a line that it is to be killed."""
    (tmp_path / "driver.py").write_text(DRIVER)

    def _drive(address: str, pause_s: float, on_line: Callable[[str], bool] = lambda line: False) -> list[str]:
        command = [sys.executable, str(tmp_path / "driver.py"), address, str(tmp_path / "run"), str(pause_s)]
        heard = []
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as driver:
            for line in driver.stdout:
                heard.append(line.strip())
                if on_line(line.strip()):
                    driver.kill()
        return heard

    return _drive


def test_a_killed_run_finds_its_trainings_again(
    tmp_path: Path, start: Callable[..., None], drive: Callable[..., list[str]]
) -> None:
    """The workers of a scheduler go on when the run is killed; the next run neither loses nor repeats a training."""
    address = f"tls://127.0.0.1:{free_port('127.0.0.1')}"
    start("scheduler", "--host", address, "--no-dashboard")
    start_worker(start, address, "1")
    start_worker(start, address, "2")
    killed = drive(address, 0.5, lambda line: line == "a 2")
    assert "a ended None" not in killed
    heard = drive(address, 0.5)
    assert {"a ended None", "b ended None", "c ended None"} <= set(heard)
    assert not {"a 0", "a 1", "a 2"} & set(heard)
    for name in "abc":
        assert trained(tmp_path / "run" / name) == "1 2 3 4 5 "
        assert (tmp_path / "run" / name / "result.json").read_text() == "5"
    # Each training in the cache of one machine only, and the training whose run was killed was never begun again.
    assert len(list((tmp_path / "cache").glob("*/trainings/*/result.json"))) == 3


@pytest.fixture
def namespace() -> Iterator[tuple[str, str, str]]:
    """Make a network of its own, and return its name, this side's address, and the name of this side's device."""
    name, device, inner = (f"ecg{part}{os.getpid()}" for part in "ndi")
    subnet = f"10.213.{os.getpid() % 256}"
    commands = [
        f"ip netns add {name}",
        f"ip link add {device} type veth peer name {inner} netns {name}",
        f"ip addr add {subnet}.1/24 dev {device}",
        f"ip link set {device} up",
        f"ip -n {name} addr add {subnet}.2/24 dev {inner}",
        f"ip -n {name} link set {inner} up",
        f"ip -n {name} link set lo up",
    ]
    if shutil.which("ip") is None:
        pytest.skip("the command ip is missing")
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"{command!r} is not permitted here: {done.stderr.strip()}")
        yield name, f"{subnet}.1", device
    finally:
        for command in (f"ip link del {device}", f"ip netns del {name}"):
            subprocess.run(command.split(), capture_output=True)


def test_a_worker_that_is_cut_off_is_replaced(
    tmp_path: Path,
    start: Callable[..., None],
    drive: Callable[..., list[str]],
    namespace: tuple[str, str, str],
) -> None:
    """If the network of a worker fails for good, the scheduler has its training run elsewhere."""
    name, host, device = namespace
    address = f"tls://{host}:{free_port(host)}"
    start("scheduler", "--host", address, "--no-dashboard")
    start_worker(start, address, "far", ("ip", "netns", "exec", name))

    def cut(line: str) -> bool:
        if line == "a 2":
            start_worker(start, address, "near")
            subprocess.run(["ip", "link", "set", device, "down"], check=True)
        return False

    # The address of this side stays reachable from here when the device is down.
    heard = drive(address, 0.5, cut)
    assert {"a ended None", "b ended None", "c ended None"} <= set(heard)
    assert all(trained(tmp_path / "run" / name) == "1 2 3 4 5 " for name in "abc")
    assert len(list((tmp_path / "cache" / "near").glob("trainings/*/result.json"))) == 3
