"""What a server counts, for Prometheus.

In: what happens, told by the scheduler and the gate. Out: the text of `/metrics`. Holds no user's text and no key; labels are endpoints
and statuses that the server has, so that their number is bounded. Each server has a registry of its own.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
SPEEDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
BATCHES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128)


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def histogram(
            name: str, text: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
        ) -> Histogram:
            return Histogram(
                f"glmkit_{name}", text, labels, buckets=(*buckets, float("inf")), registry=registry
            )

        self.requests = Counter(
            "glmkit_requests", "Requests answered.", ("endpoint", "status"), registry=registry
        )
        self.latency = histogram(
            "request_seconds", "From a request's first byte to its answer's last.", SECONDS, ("endpoint",)
        )  # fmt: skip
        self.waiting = Gauge("glmkit_queue_requests", "Requests that wait.", registry=registry)
        self.running = Gauge("glmkit_running_texts", "Texts being written.", registry=registry)
        self.batch = histogram("batch_size", "Texts read together in a step.", BATCHES)
        self.step_time = histogram("step_seconds", "Time of a step of the engine.", SECONDS)
        self.queue_time = histogram("queue_seconds", "Time that a request waited.", SECONDS)
        self.first_token = histogram(
            "time_to_first_token_seconds", "From a request to its first token.", SECONDS
        )
        self.speed = histogram(
            "tokens_per_second", "Tokens of a request by the time since it began to run.", SPEEDS
        )
        self.tokens = Counter(
            "glmkit_tokens", "Tokens read (prompt) and written (completion).", ("kind",), registry=registry
        )  # fmt: skip

    def stepped(self, batch: int, seconds: float, waiting: int) -> None:
        """A step read so many texts; so many requests wait."""
        self.waiting.set(waiting)
        self.running.set(batch)
        if batch:
            self.batch.observe(batch)
            self.step_time.observe(seconds)

    def idle(self) -> None:
        """Nothing is to be done."""
        self.waiting.set(0)
        self.running.set(0)

    def started(self, queued: float, first_token: float) -> None:
        """A request has its first token."""
        self.queue_time.observe(queued)
        self.first_token.observe(first_token)

    def ended(self, prompt_tokens: int, tokens: int, seconds: float) -> None:
        """A request ran for so long, whether it was finished or cancelled."""
        self.tokens.labels("prompt").inc(prompt_tokens)
        self.tokens.labels("completion").inc(tokens)
        if tokens and seconds > 0:
            self.speed.observe(tokens / seconds)

    def answered(self, endpoint: str, status: int, seconds: float) -> None:
        """A request was answered."""
        self.requests.labels(endpoint, str(status)).inc()
        self.latency.labels(endpoint).observe(seconds)

    def text(self) -> bytes:
        """Returns all of it as Prometheus reads it."""
        return generate_latest(self.registry)
