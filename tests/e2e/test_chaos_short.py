"""The chaos run's short form: real faults at random moments for some seconds, and nothing is lost."""

from tests.chaos.run import Run, short


def test_nothing_is_lost_under_faults_at_random_moments(tmp_path):
    found = Run(tmp_path, 1, short(), print).carry_out()
    assert {name: check["examples"] for name, check in found["checks"].items() if not check["holds"]} == {}
    assert sum(found["faults"]["injected"].values()) >= 10
    assert found["rows"]["ok"] > 0
    assert found["events"]["told"] > 0
    assert set(found["submissions"]["kinds"]) == {"batch", "small batch", "single", "predict"}
