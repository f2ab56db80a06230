"""The proxy of the tests does to connections what it says, and nothing else."""

import contextlib
import socket
import threading

import pytest

from tests.proxy import Proxy
from tests.waiting import wait_until


@pytest.fixture
def server():
    """A server that answers each line with the same line in capitals; `heard` has all that it got."""
    heard = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection):
        with connection, contextlib.suppress(OSError), connection.makefile("rb") as lines:
            for line in lines:
                heard.append(line)
                connection.sendall(line.upper())

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield listener.getsockname()[1], heard
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@pytest.fixture
def proxy(server):
    with Proxy("127.0.0.1", server[0]) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy):
    """Opens connections to the proxy that end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), timeout=5))


def ask(connection, line=b"hello\n"):
    connection.sendall(line)
    return read(connection, len(line))


def read(connection, size):
    answer = b""
    while len(answer) < size:
        some = connection.recv(size - len(answer))
        if not some:
            return answer
        answer += some
    return answer


def is_reset(connection):
    with pytest.raises(ConnectionResetError):
        connection.recv(1)
    return True


def test_bytes_go_through_both_ways(connect):
    first, second = connect(), connect()
    assert ask(first) == b"HELLO\n"
    assert ask(second, b"you\n") == b"YOU\n"


def test_many_bytes_go_through_unchanged_while_neither_side_reads(connect):
    connection = connect()
    sent = b"x" * 1_999_999 + b"\n"
    sender = threading.Thread(target=connection.sendall, args=(sent,))
    sender.start()
    assert read(connection, len(sent)) == sent.upper()
    sender.join()


def test_a_client_that_leaves_frees_its_connection(proxy, connect):
    connection = connect()
    ask(connection)
    connection.close()
    wait_until(lambda: proxy.connections == 0, 5, "the connection is gone")


def test_a_stall_holds_bytes_back_until_it_is_over(proxy, server, connect):
    connection = connect()
    ask(connection)
    proxy.stall()
    connection.sendall(b"later\n")
    late = connect()
    late.sendall(b"too\n")
    connection.settimeout(0.2)
    with pytest.raises(TimeoutError):
        connection.recv(1)
    assert server[1] == [b"hello\n"]
    proxy.resume()
    connection.settimeout(5)
    assert read(connection, 6) == b"LATER\n"
    assert read(late, 4) == b"TOO\n"


def test_a_cut_resets_what_is_there_and_takes_new_connections(proxy, connect):
    connection = connect()
    ask(connection)
    proxy.cut()
    assert is_reset(connection)
    assert ask(connect()) == b"HELLO\n"


def test_refusing_resets_and_refuses_until_it_resumes(proxy, connect):
    connection = connect()
    ask(connection)
    proxy.refuse()
    assert is_reset(connection)
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            connect()
    proxy.resume()
    assert ask(connect()) == b"HELLO\n"


def test_a_dropped_reply_means_that_the_command_ran(proxy, server, connect):
    connection = connect()
    proxy.drop_replies()
    connection.sendall(b"once\n")
    assert is_reset(connection)
    assert server[1] == [b"once\n"]
    assert proxy.undropped == 0
    assert ask(connect()) == b"HELLO\n"


def test_a_dropped_request_means_that_the_command_never_ran(proxy, server, connect):
    connection = connect()
    proxy.drop_requests(2)
    connection.sendall(b"never\n")
    assert is_reset(connection)
    other = connect()
    other.sendall(b"never\n")
    assert is_reset(other)
    assert ask(connect()) == b"HELLO\n"
    assert server[1] == [b"hello\n"]


def test_a_server_that_is_not_there_resets_the_client():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with Proxy("127.0.0.1", port) as lonely, socket.socket() as connection:
        connection.settimeout(5)

        def ask_it():
            connection.connect(("127.0.0.1", lonely.port))
            connection.recv(1)

        with pytest.raises(ConnectionResetError):  # by one or the other, whichever learns it
            ask_it()


def test_closing_resets_what_is_there_and_leaves_no_thread(server):
    proxy = Proxy("127.0.0.1", server[0])
    proxy.stall()
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as connection:
        wait_until(lambda: proxy.connections == 1, 5, "the connection is taken")
        proxy.close()
        assert is_reset(connection)
    assert f"proxy-{proxy.port}" not in [thread.name for thread in threading.enumerate()]
    proxy.close()
