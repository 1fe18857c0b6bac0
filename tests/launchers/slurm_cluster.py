"""A Slurm of one node on this machine, for the tests: Debian's munge and slurm-wlm, as root."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A job that is queued again waits as long as a credential may live.
AuthInfo=socket={munge}/socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SchedulerParameters=sched_interval=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """Why no Slurm can be started here; empty if one can."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    absent = [name for name in NEEDED if shutil.which(name, path=path) is None]
    if absent:
        return f"{', '.join(absent)} not installed (Debian: munge, slurm-wlm)"
    return "" if os.geteuid() == 0 else "Slurm's daemons are started as root"


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[None]:
    """Starts the daemons, and ends them. SLURM_CONF says to all commands where they are."""
    munge = Path(mkdtemp(prefix="munge"))  # whose parents only root may write
    shutil.chown(munge, "munge", "munge")
    munge.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    conf = folder / "slurm.conf"
    host = socket.gethostname().partition(".")[0]
    conf.write_text(CONF.format(folder=folder, munge=munge, host=host, ports=_free_ports(), cpus=os.cpu_count()))
    os.environ["SLURM_CONF"] = str(conf)
    files = [f"--{kind}={munge}/{kind.partition('-')[0]}" for kind in ("socket", "pid-file", "log-file", "seed-file")]
    daemons: list[subprocess.Popen] = []
    try:
        _run("runuser", "-u", "munge", "--", "munged", *files)
        for name in ("slurmctld", "slurmd"):
            output = (folder / f"{name}.out").open("w")
            daemons.append(subprocess.Popen([_path(name), "-D"], stdout=output, stderr=subprocess.STDOUT))
        deadline = time.monotonic() + 60
        while "idle" not in subprocess.run(["sinfo", "-h"], capture_output=True, text=True).stdout:
            assert time.monotonic() < deadline, (folder / "slurmctld.log").read_text()
            time.sleep(0.5)
        yield
    finally:
        subprocess.run(["scancel", "--me"], check=False)
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()
        _run("runuser", "-u", "munge", "--", "munged", "--stop", files[0])
        del os.environ["SLURM_CONF"]
        shutil.rmtree(munge)


def _run(*command: str) -> None:
    subprocess.run([_path(command[0]), *command[1:]], check=True)


def _path(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found is not None, name
    return found


def _free_ports() -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports
