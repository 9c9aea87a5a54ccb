"""Claims 17 and 21 on made-up results, on both sides of each bar, and the stored experiments in the shape that chapters read."""

import pytest

from minim1.report.claims import rewards
from minim1.report.experiments import judge, sft, silent_faults, values, windows

WINDOWS, JUDGE = rewards.ROWS


def batch(number, window=40, *, right=10.0, wrong=10.0, cut=0.0, tail=0.0, success=0.5):
    """A record of `windows`; tail: perplexity of the last quarter of cut answers, that of the first being 2."""
    return {"rollout": number, "window": window, "success": success, "length_right": right, "length_wrong": wrong,
            "cut_right": 0.0, "cut_wrong": cut, "head_perplexity": 2.0 if tail else 0.0, "tail_perplexity": tail}


def grown(*, window=48, right=11.0, wrong=40.0, cut=0.5, tail=3.0):
    """Four batches of a first stage and four of a last one, `wrong` being the mean length of all wrong answers in it."""
    late = [batch(i, window, right=right, wrong=wrong, cut=cut, tail=tail) for i in range(5, 9)]
    return [batch(i) for i in range(1, 5)] + late


def result(arms):
    return {"runs": {arm: {str(seed): records for seed, records in enumerate(runs)} for arm, runs in arms.items()}}


def staged(plain, fixed):
    return {"windows": result({"plain": plain, "with the fixes": fixed})}


GOOD, MENDED = grown(), grown(tail=2.5)


@pytest.mark.parametrize("plain, fixed, expected", [
    ([GOOD, GOOD], [MENDED, MENDED], "holds"),
    ([GOOD, GOOD], [MENDED, grown(tail=3.5)], "partly"),  # with one seed the fixes make tails worse
    ([GOOD, GOOD], [MENDED, grown(window=40, tail=2.5)], "partly"),  # one window stays shut
    ([grown(tail=1.9)], [grown(tail=1.8)], "partly"),  # tails are surer than heads, with and without
    ([grown(wrong=29.0)], [MENDED], "partly"),  # 24 of them are at the window of 48, the others at 10 as before
    ([grown(wrong=29.0)], [GOOD], "not at this scale"),
    ([grown(wrong=10.0, cut=0.0, tail=0.0)], [MENDED], "not at this scale"),
])
def test_windows_needs_all_three_parts_with_every_seed(plain, fixed, expected):
    results = staged(plain, fixed)
    assert WINDOWS.assess(results).verdict == expected
    assert WINDOWS.draw(results).data


def test_growth_leaves_out_the_answers_that_were_cut():
    assert rewards.growth(grown(wrong=40.0, cut=0.5), "wrong") == 30.0
    assert rewards.growth(grown(wrong=40.0, cut=0.5), "ended") == 22.0  # 2 * 40 - 48 = 32 tokens, 10 before
    assert rewards.growth(grown(), "right") == 1.0
    assert rewards.growth(grown(wrong=48.0, cut=1.0), "ended") == 0.0  # there are none


def test_growth_weighs_batches_by_the_answers_of_a_kind():
    early = [batch(i) for i in range(1, 5)]
    late = [batch(5, right=20.0, success=0.9), *(batch(i, right=40.0, success=0.1) for i in (6, 7, 8))]
    assert rewards.growth(early + late, "right") == pytest.approx((0.9 * 20 + 0.3 * 40) / 1.2 - 10)


def judged(success, length, alarm=None):
    """Six batches: three at 0.8 and 10 tokens, three at the given ones; an alarm after batch `alarm`."""
    return [{"rollout": i, "success": s, "length": n, "alarm": i == alarm}
            for i, (s, n) in enumerate([(0.8, 10.0)] * 3 + [(success, length)] * 3, 1)]


FAIR, BIASED, WATCHED = judged(0.7, 20.0), judged(0.1, 50.0), judged(0.4, 30.0, alarm=4)


@pytest.mark.parametrize("biased, watched, fair, expected", [
    ([BIASED] * 2, [WATCHED] * 2, [FAIR] * 2, "mechanism shown by construction"),
    ([BIASED] * 2, [WATCHED, judged(0.1, 50.0, alarm=6)], [FAIR] * 2, "partly"),  # one run is lost for good
    ([BIASED] * 2, [WATCHED] * 2, [judged(0.7, 20.0, alarm=5)] * 2, "partly"),  # it always rings
    ([BIASED] * 2, [WATCHED, judged(0.4, 30.0)], [FAIR] * 2, "not at this scale"),  # one alarm does not come
    ([judged(0.7, 50.0)], [WATCHED], [FAIR], "not at this scale"),  # no harm
    ([judged(0.1, 20.0)], [WATCHED], [FAIR], "not at this scale"),  # harm, but not by length
])
def test_judge_needs_harm_alarm_and_repair_with_every_seed(biased, watched, fair, expected):
    results = {"judge": result({"biased": biased, "watched": watched, "fair": fair})}
    finding = JUDGE.assess(results)
    assert finding.verdict == expected
    assert len(finding.measured[0].values) == len(biased)
    assert JUDGE.draw(results).data


def test_success_given_back_is_watched_less_biased():
    results = {"judge": result({"biased": [BIASED], "watched": [WATCHED], "fair": [FAIR]})}
    assert JUDGE.assess(results).measured[0].values == pytest.approx([0.3])


@pytest.mark.parametrize("row", rewards.ROWS, ids=lambda row: row.name)
def test_rows_read_what_is_stored(row):
    (name,) = row.experiments
    results = {name: {"windows": windows, "judge": judge}[name].stored()}
    finding = row.assess(results)
    assert len(finding.measured[0].values) >= 3
    assert row.draw(results).data


def test_no_stored_window_stays_for_less_than_a_stage():
    stays = [sum(r["window"] == window for r in records)
             for runs in windows.stored()["runs"].values() for records in runs.values()
             for window in {r["window"] for r in records if r["window"] < records[-1]["window"]}]
    assert min(stays) == rewards.STAGE


def test_chapter_10_reads_the_stored_arms_in_the_order_of_their_seeds():
    raw, shown = sft.stored_result("sft"), sft.stored()
    assert list(shown["arms"]) == list(sft.ARMS)
    assert list(shown["right"]) == list(sft.SAMPLED)
    assert shown["arms"]["every wait"][2] == raw["runs"]["every wait"]["2"]
    assert shown["steps"] == shown["arms"]["as shipped"][0][-1]["step"]
    assert shown["guess"] == pytest.approx(sft.share_of_pairs(), rel=1e-4)
    assert len(shown["right"]["after RL"]) == sft.PROBLEMS
    assert {"machine", "versions", "samples", "before"} <= set(shown)


def test_chapter_16_reads_a_list_of_seeds_for_each_fault():
    shown = silent_faults.stored()
    assert list(shown["runs"]) == list(silent_faults.ARMS)
    assert shown["seeds"] == [0, 1, 2]
    assert shown["runs"]["rope"] == values(silent_faults.stored_result("silent_faults"), "rope")
    assert shown["runs"]["none"][0]["loss"][-1][0] == shown["steps"]
