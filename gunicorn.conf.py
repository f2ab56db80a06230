"""How gunicorn serves the API; it finds this file by itself when started in the project's folder."""

import sys
from pathlib import Path

import settings
from api import capacity
from api.web_worker import Worker
from models.catalog import Catalog, ModelsError
from settings import BadSetting, Settings


def checked() -> Settings:
    """The settings; here already, for each web process would only say the same, and with a traceback."""
    try:
        chosen = settings.load()
        Catalog.read(chosen.models_path, chosen.default_model)
    except (BadSetting, ModelsError) as error:
        sys.exit(f"the web process cannot start: {error}")
    return chosen


# gunicorn itself reads PORT, which hosts like Heroku set, and then binds 0.0.0.0:$PORT.
workers = checked().web_concurrency
# Threads, and for plain predictions none; problem documents for what gunicorn itself refuses.
worker_class = Worker
threads = capacity.threads(checked())
# Connections that are idle or only just begun hold no thread.
worker_connections = capacity.connections(threads)
# With many threads that each work for a moment, handing the interpreter's lock over every five milliseconds costs a
# third of the throughput; health checks take no longer.
sys.setswitchinterval(0.02)

# Only guards against a process whose main thread hangs: requests run in other threads and may take longer.
timeout = 60
# Below the 30 s that hosts leave between SIGTERM and SIGKILL.
graceful_timeout = 25
# Above the 90 s for which Heroku's router keeps an idle connection: the side that closes first must be the router,
# or it sends a request into a connection that is just being closed. An idle connection holds no thread.
keepalive = 100

# As much as a request for a job or a model ever needs; gunicorn's upper limit for the line is 8190 too.
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 8190

# Each process makes its own connections to the store.
preload_app = False
# gunicorn would open a socket for commands below the home directory.
control_socket_disable = True
accesslog = None
# The heartbeat file of each process is touched every second: keep it off slow disks.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 (gunicorn makes private files there)
