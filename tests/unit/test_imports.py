"""Who may import whom: each line of the rules, read from the source and, where it matters most, seen at run time."""

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("jobs", "models", "api", "worker", "client")
OURS = {"settings", "bin", "bench", "tests", *PACKAGES}
# What exists for type checkers only.
TYPES = {"_typeshed"}
SCIENCE = {"numpy", "pandas", "scipy", "sklearn", "joblib", "orjson", "pyarrow"}
STORE = {"redis", "rq"}


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def sources():
    """The source of each of our modules, by name; without tests, commands and measurements."""
    paths = [ROOT / "settings.py", *(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))]
    return {module_name(path): path for path in paths}


@cache
def tree(module):
    return ast.parse(sources()[module].read_text(encoding="utf-8"))


@cache
def imports(module):
    """Every module that `module` names in an import statement, wherever in it that stands."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (submodules & set(sources())) or {node.module}
    return found


def top(name):
    return name.split(".")[0]


def is_within(name, parents):
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def modules(*parents):
    found = [module for module in sources() if is_within(module, parents)]
    assert found, f"there is no module in {parents}"
    return found


def reach(start):
    """The modules that importing `start` imports of ours, packages above them included."""
    seen, waiting = set(), {start}
    while waiting:
        module = waiting.pop()
        seen.add(module)
        parents = {module.rsplit(".", depth)[0] for depth in range(1, module.count(".") + 1)}
        waiting |= ((imports(module) | parents) & set(sources())) - seen
    return seen


def child_modules():
    """The modules of the predictor child: what is reached from the ones in `worker` that load models."""
    loading = {"models.loading", "models.predictor", "worker.predictor"}
    roots = [module for module in modules("worker") if loading & set(imports(module))]
    assert roots, "no module of worker imports models.predictor"
    return {module for root in roots for module in reach(root)}


def breaches(importing, ours=(), others=()):
    """What the modules `importing` import besides the standard library, `ours` and the libraries `others`."""
    return sorted(
        f"{module} imports {name}"
        for module in importing
        for name in imports(module)
        if not is_within(name, ours) and top(name) not in {*others, *TYPES, *sys.stdlib_module_names}
    )


def test_settings_imports_only_the_standard_library():
    assert breaches(["settings"]) == []


def test_jobs_imports_redis_rq_and_compression_only():
    assert breaches(modules("jobs"), ours=["jobs"], others={"redis", "rq", "zstandard"}) == []


def test_codec_and_splitter_know_no_store():
    reached = {each for module in modules("jobs.codec", "jobs.splitter") for each in reach(module)}
    assert breaches(reached, ours=["jobs"], others={"zstandard"}) == []


@pytest.mark.parametrize("module", ["models.catalog", "models.rows"])
def test_catalog_and_rows_need_only_the_standard_library(module):
    assert breaches(reach(module), ours=["models"]) == []


def test_models_imports_models_and_science_only():
    # mlxtend carries the Boston table, for training.
    assert breaches(modules("models"), ours=["models"], others=SCIENCE | {"mlxtend"}) == []
    users = [module for module in modules("models") if "mlxtend" in map(top, imports(module))]
    assert users in ([], ["models.train"])


def test_api_imports_settings_jobs_catalog_rows_and_flask_only():
    # zstandard: a body may come with Content-Encoding: zstd.
    allowed = ["api", "settings", "jobs", "models.catalog", "models.rows"]
    server = {"api.plain", "api.web_worker"}
    others = {"flask", "werkzeug", "zstandard"}
    assert breaches(set(modules("api")) - server, allowed, others) == []
    assert breaches(server, allowed, others={"gunicorn"}) == []


def test_app_does_not_reach_the_server_it_runs_under():
    assert {"api.plain", "api.web_worker"} & reach("api.app") == set()


def test_worker_parent_imports_settings_jobs_catalog_and_rq_only():
    allowed = ["worker", "settings", "jobs", "models.catalog"]
    parent = [module for module in modules("worker") if module not in child_modules()]
    assert breaches(parent, allowed, others=STORE) == []


def test_predictor_child_imports_models_and_codec_only():
    child = [module for module in child_modules() if top(module) == "worker"]
    assert breaches(child, ours=["worker", "models", "jobs.codec"], others=SCIENCE) == []


def test_predictor_child_reaches_no_store_and_no_settings():
    assert breaches(child_modules(), ["worker", "models", "jobs"], others=SCIENCE | {"zstandard"}) == []


def test_worker_parent_does_not_reach_the_predictor():
    assert {"models.loading", "models.predictor"} & reach("worker.__main__") == set()
    assert {top(name) for module in reach("worker.__main__") for name in imports(module)} & SCIENCE == set()


def test_client_imports_nothing_of_ours():
    client = [module for module in sources() if is_within(module, ["client"])]
    assert [each for each in breaches(client, ["client"]) if top(each.split()[-1]) in OURS] == []


def test_only_settings_reads_the_environment():
    reading = {"environ", "environb", "getenv", "getenvb"}
    readers = {
        module
        for module in sources()
        for node in ast.walk(tree(module))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) in {f"os.{name}" for name in reading})
        or (isinstance(node, ast.ImportFrom) and node.module == "os" and {each.name for each in node.names} & reading)
    }
    assert readers == {"settings"}


def test_unpickling_stands_in_one_place():
    loaders = {
        module
        for module in sources()
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in {"pickle", "joblib", "cloudpickle", "marshal", "shelve", "dill"}
        and node.attr in {"load", "loads", "Unpickler", "open"}
    }
    assert loaders == {"models.loading"}


def test_packages_import_nothing():
    packages = [module for module, path in sources().items() if path.name == "__init__.py"]
    assert {module: imports(module) for module in packages if imports(module)} == {}


def loaded_by(module):
    """The top-level names in `sys.modules` of a fresh process that has imported `module`."""
    program = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.split())


def test_process_of_the_api_has_no_science():
    assert loaded_by(", ".join(modules("api"))) & SCIENCE == set()


def test_parent_of_the_worker_has_no_science_and_no_flask():
    assert loaded_by("worker.__main__") & (SCIENCE | {"flask"}) == set()


def test_process_of_the_predictor_has_no_store():
    child = [module for module in child_modules() if top(module) == "worker"]
    assert loaded_by(", ".join(child)) & (STORE | {"settings", "flask"}) == set()


def test_importing_the_codec_loads_no_store():
    assert loaded_by(", ".join(modules("jobs.codec", "jobs.splitter"))) & (STORE | SCIENCE | {"flask"}) == set()
