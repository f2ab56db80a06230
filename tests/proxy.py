"""A TCP proxy between the processes under test and a server, with the faults of a network on demand."""

import contextlib
import queue
import selectors
import socket
import struct
import threading

READ_BYTES = 64 * 1024
HELD_BYTES = 1024 * 1024  # what is held for a side that does not read before the other is not read either


class Proxy:
    """A TCP proxy on loopback in front of a server, in a thread of its own; use as a context manager.

    Every method returns when what it says is so.
    """

    def __init__(self, target_host, target_port):
        self._target = (target_host, target_port)
        self._selector = selectors.DefaultSelector()
        self._links = set()
        self._stalled = False
        self._lost = {"replies": 0, "requests": 0}
        self._orders = queue.SimpleQueue()
        self._waker, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._listener = None
        self._listen(_bound(0))
        self.port = self._listener.getsockname()[1]
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=f"proxy-{self.port}", daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def connections(self):
        """How many connections there are at the moment."""
        return len(self._links)

    def stall(self):
        """Forwards nothing in either direction; connections stay open, and new ones are taken."""
        self._order(lambda: self._set_stalled(True))

    def resume(self):
        """Forwards again, first what was held back, and takes new connections."""
        self._order(self._be_usual)

    def cut(self):
        """Resets all present connections; new ones are taken."""
        self._order(self._reset_all)

    def refuse(self):
        """Resets all present connections and refuses new ones until `resume`."""
        self._order(self._stop_listening)

    def drop_replies(self, count=1):
        """Resets the connection instead of forwarding bytes of the server, the next `count` times: commands ran."""
        self._order(lambda: self._lost.update(replies=count))

    def drop_requests(self, count=1):
        """Resets the connection instead of forwarding bytes of a client, the next `count` times: commands never run."""
        self._order(lambda: self._lost.update(requests=count))

    @property
    def undropped(self):
        """How many replies and requests are still to be dropped."""
        return sum(self._lost.values())

    def close(self):
        """Resets everything and ends the thread."""
        if not self._closed:
            self._order(self._end)
            self._thread.join()
            for each in (self._selector, self._waker, self._woken, self._listener):
                each.close()

    def loses(self, kind):
        """Whether the bytes at hand ("replies" or "requests") are among those to be dropped; counts them if so."""
        if not self._lost[kind]:
            return False
        self._lost[kind] -= 1
        return True

    def _order(self, action):
        """Has the thread do something, and waits until it is done."""
        done = threading.Event()
        self._orders.put((action, done))
        self._waker.send(b".")
        if not done.wait(10):
            raise RuntimeError("the proxy's thread does not answer")

    def _run(self):
        while True:
            for key, events in self._selector.select():
                if key.fileobj is self._woken:
                    self._obey()
                elif key.fileobj is self._listener:
                    self._take()
                elif key.data in self._links:  # else it was closed by an event of the same round
                    key.data.handle(key.fileobj, events)
            if self._closed:
                return

    def _obey(self):
        with contextlib.suppress(BlockingIOError):
            self._woken.recv(READ_BYTES)
        while not self._orders.empty():
            action, done = self._orders.get()
            action()
            done.set()

    def _take(self):
        with contextlib.suppress(OSError):
            client, _ = self._listener.accept()
            try:
                server = socket.create_connection(self._target, timeout=1)
            except OSError:
                _reset(client)
                return
            link = Link(self, self._selector, client, server)
            self._links.add(link)
            link.watch(self._stalled)

    def forget(self, link):
        """The link has closed itself."""
        self._links.discard(link)

    def _set_stalled(self, stalled):
        self._stalled = stalled
        for link in list(self._links):
            link.watch(stalled)

    def _be_usual(self):
        if self._listener not in self._watched():
            self._listen(self._listener)
        self._set_stalled(False)

    def _reset_all(self):
        for link in list(self._links):
            link.reset()

    def _stop_listening(self):
        if self._listener in self._watched():
            self._selector.unregister(self._listener)
            self._listener.close()
            # Bound and not listening: connections are refused, and nobody else gets the port.
            self._listener = _bound(self.port)
        self._reset_all()

    def _end(self):
        self._stop_listening()
        self._closed = True

    def _listen(self, bound):
        bound.listen(512)
        bound.setblocking(False)
        self._listener = bound
        self._selector.register(bound, selectors.EVENT_READ)

    def _watched(self):
        return {key.fileobj for key in self._selector.get_map().values()}


class Link:
    """One client's connection and the one to the server behind it."""

    def __init__(self, proxy, selector, client, server):
        self._proxy = proxy
        self._selector = selector
        self._peers = {client: server, server: client}
        self._kinds = {client: "requests", server: "replies"}
        self._held = {client: bytearray(), server: bytearray()}  # what is still to be sent to it
        self._stalled = False
        self._ending = False
        for each in self._peers:
            each.setblocking(False)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def watch(self, stalled):
        """Waits for what can be done now: nothing while stalled."""
        self._stalled = stalled
        for each, peer in self._peers.items():
            events = 0
            if not stalled and not self._ending and len(self._held[peer]) < HELD_BYTES:
                events |= selectors.EVENT_READ
            if not stalled and self._held[each]:
                events |= selectors.EVENT_WRITE
            self._set_events(each, events)

    def handle(self, end, events):
        """Reads from or writes to one end, as far as it goes."""
        if self._stalled:
            return  # the stall came in the same round as these bytes
        try:
            if events & selectors.EVENT_WRITE:
                del self._held[end][: end.send(self._held[end])]
            if events & selectors.EVENT_READ and not self._read(end):
                return
        except BlockingIOError:
            return
        except OSError:
            self.reset()
            return
        if self._ending and not any(self._held.values()):
            self._close()
        else:
            self.watch(False)

    def reset(self):
        """Closes both connections with a reset."""
        for each in self._peers:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close()

    def _read(self, end):
        """Takes what came; False when that ended the link."""
        taken = end.recv(READ_BYTES)
        if taken and self._proxy.loses(self._kinds[end]):
            self.reset()
            return False
        self._held[self._peers[end]] += taken
        if not taken:
            self._ending = True
            self._held[end].clear()  # nobody is there to read it
        return True

    def _close(self):
        for each in self._peers:
            self._set_events(each, 0)
            each.close()
        self._proxy.forget(self)

    def _set_events(self, end, events):
        watched = end in self._selector.get_map()
        if events and watched:
            self._selector.modify(end, events, self)
        elif events:
            self._selector.register(end, events, self)
        elif watched:
            self._selector.unregister(end)


def _bound(port):
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
