"""How scripts are put together: each gets what it uses of what they share, in an order in which it is defined."""

import re

import pytest

from jobs.scripts import LUA, Limits, assemble

LIMITS = Limits(
    upload_deadline_seconds=60,
    lease_seconds=10,
    results_ttl_seconds=3600,
    single_ttl_seconds=600,
    tombstone_ttl_seconds=7200,
    job_max_age_seconds=86400,
    version_wait_seconds=60,
    store_budget_bytes=0,
)
SCRIPTS = {path.stem: path.read_text(encoding="utf-8") for path in LUA.glob("*.lua")}


def names(listed):
    return set(re.findall(r"\w+", listed or ""))


GLOBALS = names("redis cjson ARGV string table math tonumber tostring type pairs ipairs next unpack pcall")
KEYWORDS = names(
    "and break do else elseif end false for function if in local nil not or repeat return then true until while"
)
NOISE = re.compile(r"^#!.*|--.*|'(?:\\.|[^'\\\n])*'", re.MULTILINE)  # the first line, comments, texts
PIECES = re.compile(
    r"""(?:local\s+)?\bfunction\s*(?P<function>\w*)\s*\((?P<parameters>[^)]*)\)
    | \blocal\s+(?P<local>\w+(?:\s*,\s*\w+)*)
    | \bfor\s+(?P<for>\w+(?:\s*,\s*\w+)*)
    | \.\.\.? | [.:]\w+ | \d[\w.]*  # neither fields of tables nor numbers are names
    | (?P<field>\w+)\s*=(?!=)
    | (?P<name>[A-Za-z_]\w*)
    | (?P<brace>[{}])""",
    re.VERBOSE,
)


def unknown_names(script):
    """The names that a script uses where nothing defines them: to Lua these are globals, which a store refuses."""
    scopes, unknown, braces = [set(GLOBALS)], set(), 0
    for piece in PIECES.finditer(NOISE.sub("''", script)):
        name = piece["name"] or piece["field"]
        if piece["parameters"] is not None:  # a function's name is known to itself, and to what comes after it
            scopes[-1] |= names(piece["function"])
            scopes.append(names(piece["parameters"]))
        elif piece["local"]:
            scopes[-1] |= names(piece["local"])
        elif piece["for"] or name in ("if", "while", "repeat"):  # a `do` that stands alone is not used
            scopes.append(names(piece["for"]))
        elif name in ("else", "elseif"):
            scopes[-1] = set()
        elif name in ("end", "until"):
            scopes.pop()
        elif piece["brace"]:
            braces += 1 if piece["brace"] == "{" else -1
        elif name and not (braces and piece["field"]) and name not in KEYWORDS.union(*scopes):
            unknown.add(name)
    assert len(scopes) == 1, "a block is not closed"
    return unknown


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_uses_only_what_stands_before_it(name):
    assert unknown_names(assemble(SCRIPTS[name], LIMITS)) == set()


@pytest.mark.parametrize(
    ("script", "unknown"),
    [
        ("local function f() return g() end\nlocal function g() end", {"g"}),  # defined too late
        ("if ARGV[1] then local a = 1 end\nreturn a", {"a"}),  # defined elsewhere
        ("for i = 1, n do redis.call('GET', i) end", {"n"}),
        ("local t = { a = b, c = 'd' } -- e", {"b"}),
        ("count = 1", {"count"}),
        ("local function f(a, ...)\n  return a.b .. c:lower(), f, ...\nend", {"c"}),
    ],
)
def test_name_that_nothing_defines_is_found(script, unknown):
    assert unknown_names(script) == unknown


def test_what_a_script_does_not_use_does_not_stand_before_it():
    script = assemble("#!lua flags=no-writes\nreturn now()", LIMITS)
    assert re.findall(r"^local (?:function )?(\w+)", script, re.MULTILINE) == ["now", "run", "answer"]


def test_first_line_stays_the_first():
    for script in SCRIPTS.values():
        assert assemble(script, LIMITS).partition("\n")[0] == script.partition("\n")[0]


def test_script_that_changes_a_job_publishes_it():
    assert "\npublish()\n" in assemble(SCRIPTS["cancel"], LIMITS)
    assert "publish" not in assemble(SCRIPTS["find_key"], LIMITS)


def test_everything_that_is_shared_is_used_by_some_script():
    shared = "\n".join(path.read_text(encoding="utf-8") for path in (LUA / "shared").glob("*.lua"))
    defined = set(re.findall(r"^local (?:function )?(\w+)", shared, re.MULTILINE))
    used = {name for script in SCRIPTS.values() for name in names(assemble(script, LIMITS))}
    assert len(defined) > 50
    assert defined - used == set()
