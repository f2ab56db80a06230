"""Documentation and code, held together: routes, error codes, transitions, keys, links and commands."""

import ast
import json
import os
import re
from functools import cache

import pytest
from process import ROOT

import settings
from api.app import create_app
from bench.recovery.page import last_results, recovery_times
from jobs.status import TRANSITIONS, as_mermaid
from tests.chaos.summary import table

DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
# Where the code of an error stands among the arguments of the call that makes it.
CODE_POSITIONS = {
    "Problem": 1,
    "SplitError": 0,
    "_refuse": 0,
    "LayoutError": 0,
    "RowError": 0,
    "CannotLoad": 0,
    "SingleResult": 1,
    "JobGone": 1,
}
# Variables that are not ours and that the documents name.
OTHERS_VARIABLES = {"PORT"}
# Modules that come with Python and that the documents run.
PYTHONS_MODULES = {"venv"}


@cache
def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


@cache
def trees():
    """The syntax of every file that makes errors which clients see."""
    folders = [ROOT / name for name in ("api", "jobs", "models", "worker")]
    paths = [path for folder in folders for path in folder.rglob("*.py")]
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def called(call):
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", None)


def calls(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def text_of(node):
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def codes_in_calls():
    for tree in trees().values():
        for call in calls(tree):
            position = CODE_POSITIONS.get(called(call))
            if position is not None and len(call.args) > position:
                code = text_of(call.args[position])
                if code:
                    yield code


def codes_made_from_parameters():
    """`invalid_<parameter>`, for the functions that make such a code from the parameter that they are called with."""
    for tree in trees().values():
        makers = {
            function.name: piece.values[0].value
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef)
            for call in calls(function)
            if called(call) == "Problem"
            for piece in call.args[1:2]
            if isinstance(piece, ast.JoinedStr)
        }
        for call in calls(tree):
            if called(call) in makers:
                yield makers[called(call)] + text_of(call.args[0])


def codes_in_tables():
    """The keys and the first elements of the tables in which problems are looked up."""
    for name in ("problems.py", "server_errors.py"):
        for statement in trees()[ROOT / "api" / name].body:
            if isinstance(statement, ast.Assign):
                for node in ast.walk(statement.value):
                    firsts = node.elts[:1] if isinstance(node, ast.Tuple) else getattr(node, "keys", [])
                    yield from filter(None, map(text_of, firsts))


def codes_in_scripts():
    for path in (ROOT / "jobs" / "lua").rglob("*.lua"):
        script = read(path)
        yield from re.findall(r"\b(?:fail\(id|finish\(id, 'failed', at), '(\w+)'", script)


def documented_codes():
    return set(re.findall(r"^\| `(\w+)` \|", read("docs/http.md").partition("\n## Errors\n")[2], re.MULTILINE))


def test_every_code_that_a_client_can_get_is_documented():
    made = {*codes_in_calls(), *codes_made_from_parameters(), *codes_in_tables(), *codes_in_scripts()}
    assert {"body_too_large", "invalid_escape_formulas", "job_lost", "deadline_exceeded", "nul_byte"} <= made
    assert made - documented_codes() == set()


def test_every_documented_code_stands_in_the_code():
    sources = [read(path) for path in [*trees(), *(ROOT / "jobs" / "lua").rglob("*.lua")]]
    words = {word for source in sources for word in re.findall(r"[\"'](\w+)[\"']", source)}
    assert documented_codes() - words - set(codes_made_from_parameters()) == set()


def test_every_documented_status_is_one_that_problems_have():
    rows = re.findall(r"^\| `\w+` \| ([\d, ]+) \|", read("docs/http.md"), re.MULTILINE)
    assert len(rows) > 50
    allowed = {400, 403, 404, 405, 406, 408, 409, 410, 411, 413, 414, 415, 416, 417, 422, 431, 503, 507}
    assert {int(status) for row in rows for status in row.split(", ")} <= allowed


def routes_of_the_app():
    app = create_app(settings.Settings(redis_url="redis://nowhere.invalid:6379"))
    return {
        (method, re.sub("<.*?>", "<>", rule.rule))
        for rule in app.url_map.iter_rules()
        for method in rule.methods - {"HEAD", "OPTIONS"}
    }


def routes_named_in(text):
    return {
        (method, re.sub("<.*?>", "<>", path))
        for method, path in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`\s?]*)`", text)
    }


def test_every_route_is_in_the_table_of_routes_and_the_other_way_round():
    table = read("docs/http.md").partition("\n## Routes\n")[2].partition("\n## ")[0]
    assert routes_named_in(table) == routes_of_the_app()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_name_only_routes_that_there_are(path):
    assert routes_named_in(read(path)) <= routes_of_the_app()


def test_overview_in_the_readme_has_every_route():
    assert routes_named_in(read("README.md")) == routes_of_the_app()


def block(path, name):
    """What stands between the marks of a block that is made by code."""
    return read(path).partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0].strip()


def transitions_as_markdown():
    """The table of statuses as docs/lifecycle.md shows it."""
    lines = ["| from | may become |", "| --- | --- |"]
    for current, onward in TRANSITIONS.items():
        names = ", ".join(f"`{wanted.value}`" for wanted in TRANSITIONS if wanted in onward)
        lines.append(f"| `{current}` | {names or 'nothing: it has ended'} |")
    return "\n".join(lines)


def test_table_of_transitions_is_that_of_the_code():
    assert block("docs/lifecycle.md", "transitions") == transitions_as_markdown()


def test_diagram_of_transitions_is_drawn_from_the_code():
    assert block("docs/guarantees.md", "diagram") == f"```mermaid\n{as_mermaid()}```"


def test_chaos_runs_are_those_of_the_last_results_file():
    last = sorted((ROOT / "bench" / "results").glob("*-chaos.json"))[-1]
    runs = json.loads(last.read_text())
    assert block("docs/guarantees.md", "chaos") == table(runs)
    assert all(run["holds"] for run in runs)


def test_recovery_times_are_those_of_the_last_results_file():
    assert block("docs/guarantees.md", "recovery") == recovery_times(last_results())


def slug(heading):
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path):
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)", read(path)):
        file = (path.parent / target).resolve() if target else path
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", read(file), re.MULTILINE)
            assert anchor in map(slug, headings), f"{target}#{anchor}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_named_commands_modules_and_files_are_there(path):
    code = " ".join(re.findall(r"```.*?```|`[^`\n]+`", read(path), re.DOTALL))
    for command in re.findall(r"(?<![\w./-])bin/\w+", code):
        assert os.access(ROOT / command, os.X_OK), command
    for module in re.findall(r"python -m ([a-z][\w.]*)", code):
        place = ROOT.joinpath(*module.split("."))
        ours = place.with_suffix(".py").exists() or (place / "__main__.py").exists()
        assert ours or module in PYTHONS_MODULES, module
    for name in re.findall(r"`((?:api|bench|docs|jobs|models|tests|worker)/[\w./]*)`", code):
        assert (ROOT / name).exists() or name.startswith("models/artifacts/"), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_named_variables_are_settings(path):
    known = {name.upper() for name in settings.Settings.__dataclass_fields__} | OTHERS_VARIABLES
    named = set(re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+|PORT)(?:=[^`]*)?`", read(path)))
    assert named - known - {"TRANSITIONS"} == set()


def documented_keys():
    head = ast.get_docstring(trees()[ROOT / "jobs" / "store.py"])
    firsts = [line.split("|")[1] for line in head.splitlines() if line.startswith("| `qc:")]
    return {re.sub("<.*?>", "<>", key) for first in firsts for key in re.findall("`(qc:.*?)`", first)}


def pattern_of(expression):
    """`'jobs:' .. tenant .. ':' .. kind` as `jobs:<>:<>`."""
    parts = [part.strip() for part in expression.split("..")]
    return "".join(part[1:-1] if part.startswith("'") else "<>" for part in parts)


def keys_of_scripts():
    scripts = "\n".join(read(path) for path in (ROOT / "jobs" / "lua").rglob("*.lua"))
    for expression in re.findall(r"(?<![\w.])key\(('[^()]*)\)", scripts):
        yield "qc:" + pattern_of(expression)
    for choice in re.findall(r"(?<![\w.])key\((?!')([^()]*'[^()]*)\)", scripts):
        yield from (f"qc:{name}" for name in re.findall(r"(?:and|or) '(\w+)'", choice))
    for part in re.findall(r"job_key\(\w+, '(\w+)'\)", scripts):
        yield f"qc:job:<>:{part}"
    for built in re.findall(r"return PREFIX \.\. ('[^\n]+)", scripts):
        yield "qc:" + pattern_of(built)
    for suffix in re.findall(r"inbox(?:_key\(\w+\))? \.\. '(:\w+)'", scripts):
        yield f"qc:inbox:<>{suffix}"


def keys_of_python():
    for path in (ROOT / "jobs").glob("*.py"):
        source = read(path)
        for built in re.findall(r'f"\{PREFIX\}([^"]*)"', source):
            yield "qc:" + re.sub("{.*?}", "<>", built)
        yield from (f"qc:{name}" for name in re.findall(r'PREFIX \+ "([^"]*)"', source))
        for part in re.findall(r'(?:job_key|_part)\([\w.]+, "(\w+)"', source):
            yield f"qc:job:<>:{part}"


def test_keys_at_the_head_of_the_store_are_those_that_are_used():
    used = {*keys_of_scripts(), *keys_of_python()} - {"qc:job:<>:<>"}  # that one is any part of a job
    assert used == documented_keys()
