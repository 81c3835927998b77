"""Memory of each server process: after a run, and after a body of 60 MB was refused."""

import socket

from benchmarks.bench import Bench, Broken, check_there
from benchmarks.figures.purchases import RECEIPTS, purchases
from benchmarks.report import Figure, Rounds, at_most
from benchmarks.server import Service, serving

LIMIT_MB = 200.0
BODY_BYTES = 60_000_000
CHUNK = b"x" * 65_536
PROCESSES = 2
REFUSALS = 8
"""So many, so that each process has had some."""


def run(bench: Bench) -> list[Figure]:
    after_run, after_refusal = Rounds(), Rounds()
    with bench.fresh("memory") as stage, serving(stage.settings, PROCESSES) as service:
        for _ in range(bench.plan.rounds):
            ran = bench.generator.run(service, purchases(stage), bench.plan.seconds)
            check_there(stage.url, RECEIPTS, ran.accepted)
            after_run.add(service.megabytes()[0], LIMIT_MB)
            for _ in range(REFUSALS):
                refuse(service, stage.keys["terminal"])
            after_refusal.add(service.megabytes()[0], LIMIT_MB)
    note = f"the largest of {PROCESSES} processes, compared with the limit"
    return [
        after_run.figure("memory per process, after the run", "MB", at_most(1), note),
        after_refusal.figure("memory per process, after refused bodies of 60 MB", "MB", at_most(1), note),
    ]


def refuse(service: Service, key: str) -> None:
    """Sends a purchase of 60 MB, as far as the service will listen. Broken if it is not refused as too large."""
    head = (
        f"POST /v1/transactions HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(head.encode())
        try:
            for _ in range(BODY_BYTES // len(CHUNK)):
                connection.sendall(f"{len(CHUNK):x}\r\n".encode() + CHUNK + b"\r\n")
            connection.sendall(b"0\r\n\r\n")
        except OSError:
            pass  # it has stopped listening; what it said is still to be read
        try:
            answer = connection.recv(1024)
        except OSError:
            return  # said, and lost with the connection that was closed on the rest of the body
    if not answer.startswith(b"HTTP/1.1 413"):
        raise Broken(f"a body of 60 MB was answered {answer[:80]!r}")
