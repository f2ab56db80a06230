"""How the web worker counts connections: one that is counted too little lets in more than are allowed."""

import socket
from concurrent.futures import Future

import pytest
from gunicorn.config import Config
from gunicorn.workers.gthread import TConn

from api.web_worker import Worker


@pytest.mark.parametrize("is_cut", [False, True])  # by api/download.py
def test_connection_that_is_over_is_counted_once(is_cut):
    worker = Worker.__new__(Worker)  # without a process of its own
    worker.nr_conns, worker.alive = 2, True
    client, server = socket.socketpair()
    connection = TConn(Config(), server, None, None)
    client.close()
    if is_cut:
        server.close()
    over = Future()
    over.set_result(False)
    worker.finish_request(connection, over)
    assert (worker.nr_conns, server.fileno()) == (1, -1)
