"""Who is measured beside us, and how each is started and asked."""

from dataclasses import dataclass

from bench.peer import Peer


@dataclass(frozen=True)
class Server:
    """One that answers over HTTP: its script gets the model's file and then these arguments."""

    peer: Peer
    way: str
    arguments: tuple[str, ...] = ()


def _flask(name: str, label: str, processes: int) -> Server:
    peer = Peer(name, label, script="singles_flask", environment="rq_tutorial")
    return Server(peer, "flask", (str(processes),))


FLASK = "flask"
SERVERS = {
    server.peer.name: server
    for server in (
        _flask(FLASK, "Flask + gunicorn, 2 processes of 8 threads, model in them, no queue", 2),
        _flask("flask_one", "the same, 1 process", 1),
        Server(
            Peer(
                "rq_template",
                "Flask + RQ template, 2 `SimpleWorker`: POST, poll",
                needs_store=True,
                script="singles_rq_template",
                environment="rq_tutorial",
            ),
            "rq_template",
        ),
        Server(
            Peer("mlserver", "MLServer, synchronous", script="singles_mlserver", environment="singles_mlserver"),
            "mlserver",
        ),
        Server(
            Peer(
                "bentoml",
                "BentoML, synchronous, adaptive batching",
                script="singles_bentoml",
                environment="bentoml_task",
            ),
            "bentoml",
        ),
        Server(
            Peer(
                "bentoml_task",
                "BentoML task: submit, poll, get",
                script="singles_bentoml",
                environment="bentoml_task",
            ),
            "bentoml_task",
        ),
    )
}
QUEUES = {
    peer.name: peer
    for peer in (
        Peer("huey", "huey, 2 processes", needs_store=True, script="singles_huey", environment="singles_huey"),
        Peer("celery", "Celery, prefork 2", needs_store=True, script="singles_celery", environment="celery_chord"),
        Peer("rq", "RQ, 2 `SimpleWorker`", needs_store=True, script="singles_rq", environment="rq_tutorial"),
    )
}
PEERS = {name: server.peer for name, server in SERVERS.items()} | QUEUES
LABELS = {name: peer.label for name, peer in PEERS.items()} | {"ours": "**ours**, 1 web (2 processes) and 2 workers"}
