"""Workers as actors of Ray, which places them, and begins them again on what machines there are.

The one file that knows Ray. What keeps rows right is in Postgres, as ever: Ray may take a worker for dead
that is not, and begin another.
"""

import logging
import os
import socket
from typing import Any

from freshvec.config import Settings
from freshvec.errors import FreshvecError, UsageError
from freshvec.fleet.actor import Declared, Report, WorkerActor
from freshvec.fleet.driver import Places
from freshvec.fleet.remote import Away

_KNOCK_SECONDS = 10.0
# Nothing is reported to Ray's makers; and the variable by which Ray stays on the loopback address, whose name
# is of the systems where that is the default.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


def _imported(*, is_alone: bool) -> Any:
    """Ray, which reads its variables when it is imported. Raises FreshvecError where it is not installed."""
    for name, value in (_QUIET | _LOOPBACK if is_alone else _QUIET).items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise FreshvecError(
            "use",
            "Ray",
            f"package {error.name} is not installed",
            "Run: pip install 'freshvec[ray]', here and on each of its machines.",
        ) from error
    return ray


class RayCluster:
    """The cluster at an address, or at that of RAY_ADDRESS; else one of this process alone."""

    def __init__(self, settings: Settings, address: str | None, *, once: bool) -> None:
        """Raises UsageError where the address is one for Ray's clients, whose actors a lost connection ends
        late, and FreshvecError where Ray is not installed."""
        self._daemon = settings.daemon
        self._address = address or os.environ.get("RAY_ADDRESS") or "local"
        if "://" in self._address:
            fault = f"{self._address!r} is no address of a cluster; write host:port, as in 10.0.0.1:6379"
            raise UsageError(fault)
        self._once = once
        self._ray = _imported(is_alone=self._address == "local")

    def connect(self) -> None:
        try:
            self._knock()
            self._ray.init(
                address=self._address,
                include_dashboard=False,
                log_to_driver=False,  # what workers log comes with their reports
                logging_level=logging.WARNING,
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise FreshvecError(
                "reach",
                f"Ray at {self._address}",
                str(error).strip().splitlines()[0],
                "See `ray status`; `ray start --head` begins a cluster.",
            ) from error

    def _knock(self) -> None:
        """Raises OSError where nobody listens, ValueError where it is no address: Ray would try for long."""
        if self._address not in ("local", "auto"):
            host, _, port = self._address.rpartition(":")
            socket.create_connection((host, int(port)), _KNOCK_SECONDS).close()

    def places(self) -> Places:
        """One on each GPU where there are any; else on each machine one with all of its cores."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        with_gpus = [node for node in nodes if node.get("GPU")]
        if with_gpus and self._daemon.device != "cpu":
            each = min(int(node.get("CPU", 1) // node["GPU"]) for node in with_gpus)
            return Places(int(sum(node["GPU"] for node in with_gpus)), max(1, each))
        cores = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
        each = self._daemon.threads or min(cores, default=1)
        return Places(sum(count // each for count in cores), each)

    def begin(self, number: int, threads: int) -> "RayActor":
        has_gpus = self._daemon.device != "cpu" and self._ray.cluster_resources().get("GPU", 0) >= 1
        needs: dict[str, float] = {"num_gpus": 1, "num_cpus": 1} if has_gpus else {"num_cpus": threads}
        return RayActor(self._ray, number, needs, once=self._once)

    def close(self) -> None:
        self._ray.shutdown()


class RayActor:
    """One worker. `max_restarts=-1`: Ray begins it again whenever its process or its machine is gone."""

    def __init__(self, ray: Any, number: int, needs: dict[str, float], *, once: bool) -> None:
        self._ray = ray
        self._number = number
        self._once = once
        self._kind = ray.remote(WorkerActor).options(
            **needs, max_restarts=-1, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        self._actor = self._kind.remote(number, once=once)
        self._is_dead = False
        self._asked: Any = None

    def ask(self, life: str, since: int) -> None:
        self._asked = self._actor.report.remote(life, since)

    def answer(self) -> Report | None:
        ready, _ = self._ray.wait([self._asked], timeout=0)
        if not ready:
            return None
        try:
            report: Report = self._ray.get(self._asked)
        except self._ray.exceptions.RayActorError as error:
            self._is_dead = isinstance(error, self._ray.exceptions.ActorDiedError)
            raise Away(type(error).__name__, is_for_good=self._is_dead) from error
        return report

    def take_up(self, declared: Declared) -> None:
        """As a call's argument, which goes from process to process: never one of the names, variables and
        command lines that Ray shows, or the arguments of an actor's making, which it keeps."""
        self._actor.take_up.remote(declared)

    def stop(self) -> None:
        self._actor.stop.remote()

    def restart(self) -> None:
        if self._is_dead:
            self._actor, self._is_dead = self._kind.remote(self._number, once=self._once), False
        else:
            self._ray.kill(self._actor, no_restart=False)

    def close(self) -> None:
        if self._ray.is_initialized():
            self._ray.kill(self._actor)
