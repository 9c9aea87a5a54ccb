"""The README says what the last soak counted."""

from minim1.report.experiments import RESULTS, read_result

LEAST = {"kills survived": 100, "truncations refused": 50, "exports loaded": 100, "splits compared": 20}


def test_the_readme_says_what_the_last_soak_counted():
    result, readme = read_result(RESULTS / "trust.json"), (RESULTS.parents[2] / "README.md").read_text(encoding="utf-8")
    assert all(result["counts"][what] >= least for what, least in LEAST.items())
    for what, count in result["counts"].items():
        assert f"| {count:,} |" in readme, what
    assert result["date"] in readme and result["versions"]["torch"] in readme
