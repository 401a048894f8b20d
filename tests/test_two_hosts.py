"""Two machines, as far as one can be two: network namespaces, folders that the other does not see, an SSH remote."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from quick import CELLS, QuickProject, is_like
from remote_servers import OpenSsh

pytest.importorskip("ray", reason="the extra `cluster` is not installed")
pytestmark = pytest.mark.long
HEAD, WORKER = "192.0.2.1", "192.0.2.2"  # of TEST-NET-1, which nobody has


def shell(command: str) -> None:
    done = subprocess.run(["sh", "-euc", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}"


class Hosts:
    """The project on the head, where nothing but it may run; a worker with two CPUs; and a store on the head."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.head, self.worker = folder, f"head{os.getpid()}", f"worker{os.getpid()}"
        self.at_head = ("ip", "netns", "exec", self.head)
        self.own = folder / "own"  # the worker's folder for temporary files
        self.own.mkdir()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.project = QuickProject(folder / "ours")
        self.store = OpenSsh(folder / "ssh", HEAD, self.at_head)
        for key, value in {"core.remote": "storage", "remote.storage.url": self.store.url}.items():
            self.project.run("dvc", "config", key, value)
        # Each machine has its own credentials.
        settings = folder / "credentials"
        settings.mkdir()
        (settings / "config").write_text(f"['remote \"storage\"']\n    keyfile = {self.store.key}\n")
        self.project.environment["DVC_GLOBAL_CONFIG_DIR"] = str(settings)
        # All machines of a Ray cluster need the same token, and Ray makes its own up where none is given.
        self.project.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

    def connect(self) -> None:
        """Make the two network namespaces and the cable between them."""
        shell(f"""
            ip netns add {self.head}
            ip netns add {self.worker}
            ip link add there netns {self.head} type veth peer name there netns {self.worker}
            for at in {self.head},{HEAD},{WORKER} {self.worker},{WORKER},{HEAD}; do
                IFS=, ; set -- $at ; unset IFS
                ip -n $1 link set lo up
                ip -n $1 address add $2/24 dev there
                ip -n $1 link set there up
                ip -n $1 route add default via $3    # by which Ray finds its own address
            done""")

    def start(self, megabytes: int | None = None) -> None:
        """Start Ray; the worker's folder for temporary files is on a disk of so many megabytes."""
        ray = Path(sys.executable).with_name("ray")
        environment = {**self.project.environment, "TMPDIR": str(self.own)}
        common = f"{ray} start --block --disable-usage-stats"
        hide = f"mount -t tmpfs none {self.project.folder}"
        disk = f"mount -t tmpfs -o size={megabytes}m none {self.own} && " if megabytes else ""
        head = f"--head --port 6379 --node-ip-address {HEAD} --num-cpus 0 --include-dashboard=false"
        worker = f"--address {HEAD}:6379 --node-ip-address {WORKER} --num-cpus 2"
        for host, prepare, options in ((self.head, "", head), (self.worker, f"{hide} && {disk}", worker)):
            own = self.folder / host[:1]  # short: sockets lie in it
            own.mkdir()
            command = f"{prepare}exec {common} {options} --temp-dir {own}"
            with (self.folder / f"{host}.log").open("wb") as log:
                started = subprocess.Popen(
                    ["ip", "netns", "exec", host, "sh", "-c", command],
                    env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True,
                )  # fmt: skip
            self.processes.append(started)
            self.wait_for(self.folder / f"{host}.log", "Ray runtime started")

    def wait_for(self, log: Path, text: str) -> None:
        end = time.monotonic() + 90
        while text not in log.read_text():
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.2)

    def begin(self, address: str = f"{HEAD}:6379") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.at_head, sys.executable, "-m", "cluster", "--address", address],
            cwd=self.project.folder, env=self.project.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def repro(self, check: bool = True, **address: str) -> str:
        with self.begin(**address) as run:
            shown, _ = run.communicate(timeout=300)
        assert (run.returncode == 0) == check, shown + self.logs()
        assert "Traceback" not in shown, shown
        return shown

    def logs(self) -> str:
        """Return what Ray's servers of clients wrote, which go with the folder."""
        found = sorted(self.folder.glob("*/session_2*/logs/ray_client_server*.err"))  # not what `session_latest` links
        return "".join(f"\n{path.name}:\n{path.read_text()[-4000:]}" for path in found)

    def client_server(self) -> psutil.Process:
        """Wait for the process that Ray starts on the head for a connection, and return it."""
        end = time.monotonic() + 90
        while time.monotonic() < end:
            for process in psutil.Process(self.processes[0].pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if "--mode=specific-server" in process.cmdline():
                        return process
            time.sleep(0.05)
        raise AssertionError("Ray started no process for the connection" + self.logs())

    def end(self) -> None:
        for process in reversed(self.processes):
            os.killpg(process.pid, signal.SIGINT)
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        for host in (self.head, self.worker):
            shell(f"! ip netns pids {host} >/dev/null 2>&1 || ip netns pids {host} | xargs -r kill -9")
            shell(f"! [ -e /run/netns/{host} ] || ip netns delete {host}")


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces take root and `ip` (Debian: iproute2)")
    with tempfile.TemporaryDirectory(prefix="h", ignore_cleanup_errors=True) as folder:  # short, for Ray's sockets
        made = Hosts(Path(folder))
        try:
            try:
                made.connect()
            except AssertionError as error:
                pytest.skip(f"no network namespaces here: {error}")
            yield made
        finally:
            made.end()


@pytest.fixture
def serial(tmp_path: Path) -> QuickProject:
    made = QuickProject(tmp_path / "serial")
    made.run("dvc", "repro")
    return made


def on_the_worker(hosts: Hosts) -> list[str]:
    return sorted(name for name, where in hosts.project.places() if where.startswith(str(hosts.own)))


def test_stages_run_on_another_machine_and_end_as_dvc_repro_does(hosts: Hosts, serial: QuickProject) -> None:
    hosts.start()
    with hosts.store.running():
        hosts.repro()
        is_like(hosts.project, serial)
        assert on_the_worker(hosts) == ["0", "1", "2", "3", "download"]
        # another clone, which has nothing, takes all from the remote
        shutil.rmtree(hosts.project.folder / ".dvc/cache")
        for made in ("data", "cells", "metrics", "dvc.lock"):
            hosts.project.run("rm", "-rf", made)
        hosts.repro()
    is_like(hosts.project, serial)
    assert sorted(hosts.project.ran()) == ["0", "1", "2", "3", "download", "report", "report"]
    nothing_stays_on_the_worker(hosts)


def test_the_head_of_the_pipeline_need_not_be_a_machine_of_the_cluster(hosts: Hosts, serial: QuickProject) -> None:
    hosts.start()
    with hosts.store.running():
        hosts.repro(address=f"ray://{HEAD}:10001")
    is_like(hosts.project, serial)
    assert on_the_worker(hosts) == ["0", "1", "2", "3", "download"]


def test_a_cluster_is_joined_although_its_head_could_not_serve_at_once(hosts: Hosts) -> None:
    hosts.start()
    with hosts.store.running(), hosts.begin(address=f"ray://{HEAD}:10001") as run:
        hosts.client_server().kill()
        shown, _ = run.communicate(timeout=300)
    assert run.returncode == 0, shown + hosts.logs()
    assert on_the_worker(hosts) == ["0", "1", "2", "3", "download"]


def test_what_a_killed_head_left_is_found_in_the_remote(hosts: Hosts, serial: QuickProject) -> None:
    hosts.start()
    hosts.project.tell("3", "time.sleep(600 if not (head / 'killed').exists() else 0)")
    with hosts.store.running():
        run = hosts.begin()
        while len(set(hosts.project.ran()) & {"0", "1", "2", "3"}) < CELLS:
            time.sleep(0.2)
        time.sleep(3)  # for what ended to be sent
        os.killpg(run.pid, signal.SIGKILL)
        run.communicate(timeout=60)
        (hosts.project.head / "killed").touch()
        hosts.repro()
    is_like(hosts.project, serial)
    assert sorted(hosts.project.ran()) == ["0", "1", "2", "3", "3", "download", "report"]


def nothing_stays_on_the_worker(hosts: Hosts) -> None:
    """Of a finished run, but what later ones use."""
    workspaces = hosts.own / f"distilbert-dvc-{os.getuid()}"
    give_up = time.monotonic() + 20
    while sorted(path.name for path in workspaces.iterdir()) != ["cache", "resume"]:
        assert time.monotonic() < give_up, list(workspaces.rglob("*"))
        time.sleep(0.1)


def test_a_remote_that_is_away_for_a_while_costs_no_second_run(hosts: Hosts, serial: QuickProject) -> None:
    hosts.start()
    for cell in range(CELLS):
        hosts.project.tell(str(cell), "while not (head / 'gone').exists(): time.sleep(0.1)")
    with hosts.store.running():
        run = hosts.begin()
        hosts.project.pid("0")
    (hosts.project.head / "gone").touch()
    time.sleep(5)  # in which results cannot be sent
    assert run.poll() is None
    with hosts.store.running():
        shown, _ = run.communicate(timeout=200)
    assert run.returncode == 0, shown
    assert "Traceback" not in shown
    is_like(hosts.project, serial)
    assert sorted(hosts.project.ran()) == ["0", "1", "2", "3", "download", "report"]
    logs = (hosts.project.folder / ".dvc/tmp/cluster/logs").glob("glue-eval@*.log")
    assert any("the remote does not answer" in log.read_text() for log in logs)


def test_a_full_disk_on_a_worker_fails_its_stage_alone(hosts: Hosts, serial: QuickProject) -> None:
    hosts.start(megabytes=64)
    hosts.project.tell(
        "1",
        "try: pathlib.Path('large').write_bytes(bytes(80 << 20))\nexcept OSError as error: sys.exit(error.strerror)",
    )
    with hosts.store.running():
        shown = hosts.repro(check=False)
        assert "error: failed: glue-eval@1; 1 that needs what failed did not run" in shown
        assert "No space left on device" in shown
        assert on_the_worker(hosts) == ["0", "1", "2", "3", "download"]  # whose disk is free again for the others
        hosts.project.tell("1", None)
        hosts.repro()
    is_like(hosts.project, serial)
    assert sorted(hosts.project.ran()) == ["0", "1", "1", "2", "3", "download", "report"]


def test_a_wrong_token_is_one_line(hosts: Hosts) -> None:
    hosts.start()
    hosts.project.environment["RAY_AUTH_TOKEN"] = "0" * 64
    with hosts.store.running():
        shown = hosts.repro(check=False)
    assert "RAY_AUTH_TOKEN as on its machines" in shown.splitlines()[-1]
    assert not hosts.project.ran()
