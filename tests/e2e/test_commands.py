"""bin/demo and bin/serve as a person starts them: real processes, from another directory, in the real environment."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from process import ROOT

from tests.waiting import wait_until

READY_SECONDS = 60
# What the commands promise for Ctrl-C and SIGTERM, and a little for a machine that is busy.
STOP_SECONDS = 12


class Command:
    """A running command of the project; its output goes to a file that is read while it grows."""

    def __init__(self, output, *arguments, **environment):
        self.output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [ROOT / "bin" / arguments[0], *arguments[1:]],
                cwd=output.parent,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    @property
    def said(self):
        return self.output.read_text(encoding="utf-8", errors="replace")

    def url(self):
        def ready():
            assert self.process.poll() is None, self.said
            return re.search(r"Queuecast is ready: (http://127\.0\.0\.1:\d+)", self.said)

        return wait_until(ready, READY_SECONDS, "bin/serve is ready")[1]

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(timeout=STOP_SECONDS)

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def command(tmp_path):
    """Starts commands: `command("serve", "--port", "0")`; each is started with a mark that finds its processes."""
    started = []

    def start(*arguments, **environment):
        mark = f"{tmp_path}-{len(started)}"
        each = Command(tmp_path / f"output-{len(started)}", *arguments, QUEUECAST_TEST=mark, **environment)
        each.mark = mark
        started.append(each)
        return each

    yield start
    for each in started:
        if each.process.poll() is None:
            each.kill()


def processes_of(command):
    """The running processes that the command has started, by the mark in their environment."""
    wanted = f"QUEUECAST_TEST={command.mark}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


def get(url, body=None, method="GET"):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    headers = {"Content-Type": "application/json"} if body else {}
    with opener.open(urllib.request.Request(url, data=body, method=method, headers=headers), timeout=30) as answer:
        return answer.read()


needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds processes in /proc")


@needs_proc
def test_demo_predicts_all_patients_and_leaves_no_process(command):
    demo = command("demo")
    assert demo.process.wait(timeout=170) == 0, demo.said
    assert "442 patients" in demo.said
    assert re.search(r"succeeded +442 of 442 rows +100 %", demo.said)
    assert re.search(r'\{"response": ?29\.04', demo.said)
    results = Path(re.search(r"The predictions are in (.+\.csv)", demo.said)[1])
    lines = results.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 443
    assert lines[0].split(",")[0] == "patient"
    assert lines[0].split(",")[-2:] == ["prediction", "error"]
    assert processes_of(demo) == []


@needs_proc
def test_serve_answers_and_stops_all_of_it_at_sigterm(command):
    serve = command("serve", "--workers", "1")
    url = serve.url()
    assert b"29.04" in get(f"{url}/predict", b'{"input":"7"}', "POST")
    assert len(processes_of(serve)) >= 5  # itself, the reaper, the store, web and a worker
    assert serve.stop() == 0, serve.said
    assert serve.said.rstrip().endswith("Everything is stopped.")
    assert processes_of(serve) == []


@needs_proc
def test_second_serve_beside_the_first_gets_a_port_and_a_store_of_its_own(command):
    first, second = command("serve", "--workers", "1"), command("serve", "--workers", "1")
    assert first.url() != second.url()
    assert {first.stop(signal.SIGINT), second.stop()} == {0}
    assert (processes_of(first), processes_of(second)) == ([], [])


@needs_proc
def test_serve_that_is_killed_leaves_no_process(command):
    serve = command("serve", "--workers", "1", "--port", "0")
    serve.url()
    serve.kill()
    wait_until(lambda: not processes_of(serve), STOP_SECONDS, "all processes are gone")


@needs_proc
def test_serve_replaces_a_worker_that_died(command):
    serve = command("serve", "--workers", "1", "--port", "0")
    url = serve.url()
    parents = subprocess.run(["pgrep", "-f", "--", "-m worker$"], capture_output=True, text=True, check=True)
    ours = [
        int(pid)
        for pid in parents.stdout.split()
        if f"QUEUECAST_TEST={serve.mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    ]
    assert len(ours) == 1
    os.killpg(ours[0], signal.SIGKILL)
    wait_until(lambda: "worker-1 ended with signal 9" in serve.said, 10, "the death is reported")
    assert b"29.04" in get(f"{url}/predict", b'{"input":"7"}', "POST")


def test_serve_refuses_a_port_that_is_taken(command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        serve = command("serve", "--port", str(port))
        assert serve.process.wait(timeout=READY_SECONDS) == 1
    assert f"Port {port} on 127.0.0.1 is taken" in serve.said


@needs_proc
def test_serve_whose_web_dies_at_the_start_says_why_and_leaves_no_process(command):
    serve = command("serve", "--port", "0", GUNICORN_CMD_ARGS="--no-such-option")
    assert serve.process.wait(timeout=READY_SECONDS) == 1
    assert "Queuecast could not start. web ended with exit code 2. Its last lines" in serve.said
    assert "unrecognized arguments: --no-such-option" in serve.said
    assert processes_of(serve) == []


def test_serve_takes_another_port_when_its_own_is_taken_and_says_so(command):
    with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", 8080)):
        serve = command("serve", "--workers", "0")
        port = serve.url().rpartition(":")[2]
    wait_until(lambda: "Ctrl-C stops it." in serve.said, 5, "all of it is said")
    assert f"8080 is taken by another program, so it listens on {port}." in serve.said
    assert "Without workers nothing is predicted" in serve.said
    assert serve.stop() == 0


def test_serve_with_a_store_that_does_not_answer_says_so_at_once(command):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        serve = command("serve", "--redis-url", f"redis://:geheim@127.0.0.1:{port}/0")
        began = time.monotonic()
        assert serve.process.wait(timeout=READY_SECONDS) == 1
    assert time.monotonic() - began < 5
    assert f"Queuecast could not start. The store at 127.0.0.1:{port} does not answer." in serve.said
    assert len(serve.said.strip().splitlines()) == 1
    assert "geheim" not in serve.said


@pytest.mark.parametrize("setting", [{"DEFAULT_MODEL": "nobody"}, {"MAX_ROWS": "many"}])
def test_web_process_with_a_setting_that_is_wrong_says_one_sentence(setting):
    command = [sys.executable, "-m", "gunicorn", "--bind=127.0.0.1:0", "api.app:create_app()"]
    environment = {**os.environ, "REDIS_URL": "redis://127.0.0.1:1", **setting}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=30)
    (name,) = setting
    assert done.returncode == 1
    assert done.stderr.startswith(f"the web process cannot start: {name} is ")
    assert len(done.stderr.splitlines()) == 1


def test_worker_with_a_default_model_that_is_not_there_does_not_start():
    environment = {**os.environ, "REDIS_URL": "redis://127.0.0.1:1", "DEFAULT_MODEL": "nobody"}
    command = [sys.executable, "-m", "worker"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert "DEFAULT_MODEL is 'nobody'" in done.stderr


def test_demo_that_is_asked_for_help_only_helps(command):
    demo = command("demo", "--help")
    assert demo.process.wait(timeout=READY_SECONDS) == 0
    assert "usage: bin/demo" in demo.said
    assert "patients" not in demo.said


def test_serve_refuses_a_models_folder_that_is_not_there(command, tmp_path):
    serve = command("serve", "--models-path", "nothing")
    assert serve.process.wait(timeout=READY_SECONDS) == 2
    assert f"there is no folder {tmp_path / 'nothing'}" in serve.said


def test_serve_names_the_setting_that_is_wrong(command):
    serve = command("serve", MAX_ROWS="many")
    assert serve.process.wait(timeout=READY_SECONDS) == 1
    assert "MAX_ROWS is 'many': write a whole number (rows)" in serve.said
    assert "Traceback" not in serve.said


def environment_of(folder):
    """A checkout in `folder` that holds only what makes the environment, and its command."""
    shutil.copytree(ROOT / "bin", folder / "bin", ignore=shutil.ignore_patterns("__pycache__"))
    for chain in ("requirements.txt", "requirements-local.txt", "requirements-dev.txt"):
        (folder / chain).write_text({"requirements.txt": ""}.get(chain, "-r requirements.txt\n"), encoding="utf-8")
    command = folder / "bin" / "probe"
    command.write_text(
        '#!/usr/bin/env bash\nset -euo pipefail\nroot="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"\n'
        'source "$root/bin/environment" requirements-local.txt\nexec "$python" -c "import sys; print(sys.prefix)"\n',
        encoding="utf-8",
    )
    command.chmod(0o755)
    return command


def run(command, path=None):
    environment = {**os.environ, "PATH": path or os.environ["PATH"]}
    return subprocess.run([command], cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_two_commands_that_start_together_make_one_environment_in_a_path_with_spaces(tmp_path):
    folder = tmp_path / "a folder" / "of mine"
    command = environment_of(folder)
    both = [subprocess.Popen([command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [each.communicate(timeout=120) for each in both]
    assert [each.returncode for each in both] == [0, 0], outputs
    assert {output.strip() for output, _ in outputs} == {str(folder / ".venv")}
    assert sorted(error.startswith("Installing") for _, error in outputs) == [False, True]


def test_environment_is_made_anew_after_an_interruption_and_when_requirements_change(tmp_path):
    command = environment_of(tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(shutil.which("true"))
    (tmp_path / ".venv" / "unfinished").touch()
    made = run(command)
    assert made.stderr.startswith("Installing")
    assert made.stdout.strip() == str(tmp_path / ".venv")
    assert run(command).stderr == ""
    (tmp_path / "requirements.txt").write_text("# changed\n", encoding="utf-8")
    assert run(command).stderr.startswith("Installing")
    assert run(command).stderr == ""


def test_machine_without_a_usable_python_is_told_what_is_needed(tmp_path):
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("bash", "env", "dirname", "cat", "cmp"):
        (tools / name).symlink_to(shutil.which(name))
    # As a version manager does it: a command for a version that is not there.
    (tools / "python3.11").write_text("#!/bin/sh\nexit 127\n", encoding="utf-8")
    (tools / "python3.11").chmod(0o755)
    done = run(environment_of(tmp_path / "checkout"), path=str(tools))
    assert done.returncode != 0
    assert "needs Python 3.11 to 3.14" in done.stderr
