"""Many replicas of a server, on one machine or many: the same application as a deployment of Ray Serve.

In: what loads a model, `ServingSettings`. Out: an address at which Ray's proxy passes requests on to replicas, until the process is told to
stop. Each replica is a process with a model, a scheduler and limits of its own; Ray starts another where one dies. Knows no model.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from glmkit.errors import ConfigError, missing_dependency
from glmkit.serving.settings import ServingSettings

logger = logging.getLogger(__name__)

ENDING = 20.0
"""Seconds that Ray may take to end, beside those of the requests that run."""

NAME = "glmkit"
"""Of the application and its deployment in Ray."""

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is told to anybody
    # A machine that loads models meanwhile starts a proxy slowly; Ray's 5 seconds would start it again and again.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
}


@dataclass(frozen=True)
class Replicas:
    """How many replicas there are, and what each has.

    Attributes:
        least: Fewest replicas.
        most: Most replicas; between the two Ray starts and ends them with the load.
        cpus: Cores of each.
        gpus: GPUs of each.
        address: Of a Ray cluster ("auto" finds the one of this machine); None starts one here, and ends it.
    """

    least: int = 1
    most: int | None = None
    cpus: int = 1
    gpus: float = 0.0
    address: str | None = None

    def __post_init__(self) -> None:
        problems = [
            f"{name}={value} must be at least {low}"
            for name, value, low in (
                ("replicas", self.least, 1),
                ("max_replicas", self.largest, self.least),
                ("cpus", self.cpus, 1),
                ("gpus", self.gpus, 0),
            )
            if value < low
        ]
        if problems:
            raise ConfigError("serving: " + "; ".join(problems))

    @property
    def largest(self) -> int:
        """Most replicas."""
        return self.least if self.most is None else self.most


def make_application(load: Callable[[], Any], settings: ServingSettings, replicas: Replicas) -> Any:
    """Returns what `ray.serve.run` takes.

    Args:
        load: Returns the model; called in each replica, so it must be such that Ray can send it there.
        settings: Of each replica: a queue, a rate limit and metrics are its own.
        replicas: How many.

    Raises:
        MissingDependencyError: Without `glmkit[ray]`.
    """
    serve = _serve()

    def build() -> Any:
        from glmkit.serving.app import make_app

        logging.getLogger("glmkit.serving").setLevel(logging.INFO)
        return make_app(load(), settings)

    # Beyond what a replica takes on itself it says 429; Ray must not hold that back in a queue of its own.
    room = 2 * (settings.max_batch + settings.max_queue) + settings.workers
    deployment = serve.deployment(
        serve.ingress(build)(),
        name=NAME,
        max_ongoing_requests=room,
        autoscaling_config={
            "min_replicas": replicas.least,
            "max_replicas": replicas.largest,
            "initial_replicas": replicas.least,
            "target_ongoing_requests": settings.max_batch,
        },
        ray_actor_options={"num_cpus": replicas.cpus, "num_gpus": replicas.gpus},
        graceful_shutdown_timeout_s=settings.grace,
        health_check_period_s=2,
    )
    return deployment.bind()


def serve_replicas(
    load: Callable[[], Any],
    settings: ServingSettings,
    replicas: Replicas,
    on_ready: Callable[[str], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Serves until the process is told to stop (SIGTERM, Ctrl-C); what runs then may go on for `settings.grace` seconds.

    Args:
        load: As in `make_application`.
        settings: As there; `host` and `port` are those of Ray's proxy.
        replicas: As there.
        on_ready: Called with the address when all replicas take requests.
        stop: Ends it, too; in a thread that is not the main one nothing else does.

    Raises:
        ConfigError: Ray's proxy on this cluster listens elsewhere already.
        MissingDependencyError: Without `glmkit[ray]`.
    """
    serve, over = _serve(), stop or threading.Event()
    application = make_application(load, settings, replicas)
    port = settings.port or _free_port(settings.host)
    _connect(replicas)
    # Ray's own handlers end the process at once.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: over.set())
    try:
        serve.start(http_options={"host": settings.host, "port": port})
        serve.run(application, name=NAME, route_prefix="/")
        if on_ready is not None:
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            on_ready(f"http://{host}:{port}")
        while not over.wait(0.5):
            pass
    finally:
        _end(replicas, settings.grace)


def _connect(replicas: Replicas) -> None:
    """Starts Ray here, or finds a cluster."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        return
    own: dict[str, Any] = {}
    if replicas.address is None:
        # Ray counts cores, and would wait for ever for more of them than there are.
        cores = max(os.cpu_count() or 1, replicas.largest * replicas.cpus)
        own = {"num_cpus": cores, "include_dashboard": False}
    ray.init(address=replicas.address, namespace="serve", configure_logging=False, **own)


def _end(replicas: Replicas, grace: float) -> None:
    """Lets replicas finish what runs, and ends a Ray that was started here.

    Who stops a service often tells all its processes at once; a Ray whose parts are gone already answers nothing any more.
    """

    def end() -> None:
        import ray

        serve = _serve()
        serve.delete(NAME)  # waits for what runs
        if replicas.address is None:
            serve.shutdown()
        ray.shutdown()

    ending = threading.Thread(target=end, name="glmkit-ending", daemon=True)
    ending.start()
    ending.join(grace + ENDING)
    if ending.is_alive():
        logger.error("Ray has not ended in %d seconds; its processes may be left", grace + ENDING)


def _free_port(host: str) -> int:
    """Returns a port that nobody has: Ray's proxy must be told one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as one:
        one.bind((host, 0))
        return int(one.getsockname()[1])


def _serve() -> Any:
    try:
        from ray import serve
    except ImportError as error:
        raise missing_dependency(str(error.name or "ray"), "glmkit serve --engine ray", "ray") from None  # fmt: skip
    return serve
