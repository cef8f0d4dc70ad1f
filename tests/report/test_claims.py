"""The survey's claims: each verdict from made figures, and never from too few blocks."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ad_bench import reference
from ad_bench.report import claims, collect, write_report
from ad_bench.report.claims import AVERAGE, CLAIMS, LEAST, Evidence, Figures, weigh
from tests.report.made_records import record, sure, write

BY_NAME = {claim.ident: claim for claim in CLAIMS}
Rows = dict[tuple[str, str, str], list[float]]


def figures(error: float | None = None, **by_metric: Rows) -> Figures:
    """Metric -> row -> its values in the categories 0, 1, 2, ... of one data set."""
    found: dict = {metric: {} for metric in ("image_auroc", "pixel_auroc", "pixel_aupr")}
    for metric, rows in by_metric.items():
        for key, values in rows.items():
            found[metric][key] = {("made_up", str(i)): (value, error) for i, value in enumerate(values)}
    return found


def extended(gain: float, suffix: str, blocks: int = 7) -> Figures:
    host, other = ("draem", "", "full"), (f"draem{suffix}", "", "full")
    values = [0.8 + 0.01 * i for i in range(blocks)]
    return figures(
        image_auroc={host: values, other: [v + gain * (1 + 0.1 * i) for i, v in enumerate(values)]}
    )


def few_shot(gain: float) -> Figures:
    base = [0.70 + 0.01 * i for i in range(6)]
    rows = {
        ("patchcore", "", "full"): [0.95] * 6,
        ("patchcore", "", "few_shot-2"): base,
        ("patchcore", "", "few_shot-16"): [value + gain * (1 + 0.1 * i) for i, value in enumerate(base)],
    }
    return figures(image_auroc=rows)


def heads(gain: float) -> Figures:
    base = [0.50 + 0.01 * i for i in range(6)]
    rows = {
        ("draem", "", "full"): [value + gain * (1 + 0.1 * i) for i, value in enumerate(base)],
        ("riad", "", "full"): base,
        ("stfpm", "", "full"): [0.9] * 6,  # another row of the taxonomy, none of it has a head
        ("draem", "short", "full"): [0.0] * 6,  # not the paper's settings
    }
    return figures(pixel_aupr=rows)


def saturated(spread: float, error: float | None = None) -> Figures:
    names = [("padim", "", "full"), ("cfa", "", "full"), ("spade", "", "full")]
    auroc = {key: [0.97 + 0.01 * k + 0.0001 * i for i in range(6)] for k, key in enumerate(names)}
    aupr = {key: [0.5 + spread * k * (1 + 0.1 * i) for i in range(6)] for k, key in enumerate(names)}
    return figures(error, pixel_auroc=auroc, pixel_aupr=aupr)


MADE = {
    "ensembles": (extended(0.02, "_ensemble"), extended(-0.02, "_ensemble")),
    "sspcab": (extended(0.02, "_sspcab"), extended(-0.02, "_sspcab")),
    "few_shot_gap": (few_shot(0.05), few_shot(-0.05)),
    "segmentation_heads": (heads(0.1), heads(-0.1)),
    "aupr_spreads": (saturated(0.1), saturated(0.001)),
    "aupr_separates": (saturated(0.1, 0.01), saturated(0.001, 0.01)),
}


def test_every_claim_has_made_figures_of_both_kinds() -> None:
    assert MADE.keys() == BY_NAME.keys()


@pytest.mark.parametrize("name", BY_NAME)
def test_supported_and_contradicted(name: str) -> None:
    bearing_out, against = (weigh(BY_NAME[name], "records", made) for made in MADE[name])
    assert (bearing_out.verdict, against.verdict) == ("supported", "contradicted")
    assert bearing_out.difference is not None
    assert bearing_out.difference > 0
    assert bearing_out.blocks >= LEAST
    assert bearing_out.found.rows


@pytest.mark.parametrize("name", BY_NAME)
def test_too_few_blocks_give_no_verdict_but_a_way_to_get_one(name: str) -> None:
    less = {
        metric: {key: dict(list(held.items())[: LEAST - 1]) for key, held in rows.items()}
        for metric, rows in MADE[name][0].items()
    }
    found = weigh(BY_NAME[name], "records", less, {"patchcore", "draem", "riad", "padim"})
    assert (found.verdict, found.blocks, found.p) == ("not enough records", LEAST - 1, None)
    assert "adbench run" in found.needed
    assert weigh(BY_NAME[name], "published", less).verdict == "not enough figures"


def test_undecided() -> None:
    host, other = ("draem", "", "full"), ("draem_sspcab", "", "full")
    mixed = [0.01, -0.011, 0.012, -0.013, 0.014, -0.015, 0.016, -0.017]
    made = figures(image_auroc={host: [0.8] * 8, other: [0.8 + gain for gain in mixed]})
    assert weigh(BY_NAME["sspcab"], "records", made).verdict == "undecided"


@given(st.lists(st.floats(-0.1, 0.1), max_size=12))
def test_no_verdict_rests_on_fewer_blocks_than_stated(gains: list[float]) -> None:
    host, other = ("draem", "", "full"), ("draem_sspcab", "", "full")
    made = figures(image_auroc={host: [0.5] * len(gains), other: [0.5 + gain for gain in gains]})
    found = weigh(BY_NAME["sspcab"], "records", made)
    if len(gains) < LEAST:
        assert found.verdict == "not enough records"
    if found.verdict in ("supported", "contradicted"):
        assert sum(gain != 0 for gain in gains) >= LEAST
        assert found.p is not None
        assert found.p < 0.05


def test_variants_and_protocols_are_not_mixed() -> None:
    host, other = ("draem", "short", "full"), ("draem_sspcab", "", "full")
    made = figures(image_auroc={host: [0.8] * 8, other: [0.9] * 8, ("draem", "", "unified"): [0.1] * 8})
    assert weigh(BY_NAME["sspcab"], "records", made).blocks == 0


def test_several_methods_of_one_block_are_one_difference() -> None:
    made = extended(0.02, "_sspcab")
    nsa = extended(0.04, "_sspcab")["image_auroc"]
    made["image_auroc"][("nsa", "", "full")] = nsa["draem", "", "full"]  # type: ignore[index]
    made["image_auroc"][("nsa_sspcab", "", "full")] = nsa["draem_sspcab", "", "full"]  # type: ignore[index]
    found = weigh(BY_NAME["sspcab"], "records", made)
    assert found.blocks == 7
    assert found.found.differences["made_up", "0"] == pytest.approx(0.03)


def test_an_average_does_not_count_beside_its_categories() -> None:
    made = extended(0.02, "_sspcab")
    for held in made["image_auroc"].values():
        held["made_up", AVERAGE] = (0.9, None)
        held["elsewhere", AVERAGE] = (0.9, None)
    found = weigh(BY_NAME["sspcab"], "published", made)
    assert ("made_up", AVERAGE) not in found.found.differences
    assert ("elsewhere", AVERAGE) in found.found.differences


def test_blocks_that_do_not_saturate_say_nothing_of_the_aupr() -> None:
    made = saturated(0.1)
    made["pixel_auroc"]["cfa", "", "full"]["made_up", "0"] = (
        0.94,
        None,
    )  # the median of .97, .94, .99 is .97
    assert weigh(BY_NAME["aupr_spreads"], "records", made).blocks == 6
    made["pixel_auroc"]["padim", "", "full"]["made_up", "0"] = (0.93, None)
    assert weigh(BY_NAME["aupr_spreads"], "records", made).blocks == 5


def test_heads_are_known_by_the_survey_s_losses() -> None:
    having = {name for name in reference.methods() if claims._segments(name)}
    assert {"draem", "dsr", "memseg", "mstunet"} <= having
    assert claims._segments("riad") is False
    assert claims._segments("patchcore") is None  # a memory bank trains none
    assert claims._segments("spd") is None
    assert claims._segments("of_a_user") is None


def test_records_are_read_over_seeds_with_their_errors_and_without_the_floor(tmp_path: Path) -> None:
    for seed, value in enumerate((0.8, 0.9)):
        made = record(value=value, seed=seed, fingerprint={"cell": f"{seed:012}"})
        write(tmp_path, sure(made, 0.1, 0.1, 0.02 + 0.02 * seed))
    write(tmp_path, record(method="random", value=0.5), record(method="padim", status="failed"))
    held = claims.of_records(collect(tmp_path))["pixel_auroc"]
    assert list(held) == [("patchcore", "", "full")]
    assert held["patchcore", "", "full"]["made_up", "a"] == pytest.approx((0.85, 0.03))


def test_what_the_published_figures_say() -> None:
    found = {claim.ident: weigh(claim, "published", claims.of_published()) for claim in CLAIMS}
    assert found["aupr_spreads"].verdict == "supported"
    assert found["aupr_spreads"].blocks >= 15
    assert found["sspcab"].blocks == 15
    assert found["aupr_separates"].verdict == "not enough figures"  # they have no standard errors
    for metric, rows in claims.of_published().items():
        for method, _, protocol in rows:
            standings = {
                row.standing
                for dataset in reference.datasets()
                for row in reference.published(dataset, metric)
                if (row.method, row.protocol) == (method, protocol)
            }
            assert standings != {"suspect"}


def test_the_files(tmp_path: Path) -> None:
    write(tmp_path, record(), record(method="padim"))
    files = {path.name: path for path in write_report(tmp_path)}
    page = files["claims.md"].read_text()
    for claim in CLAIMS:
        assert f"## {claim.sentence}" in page
    assert "**not enough records**; 0 of at least 6 blocks. Needed: adbench run" in page
    lines = list(csv.DictReader(io.StringIO(files["claims.csv"].read_text())))
    verdicts = [line for line in lines if line["line"] == "verdict"]
    assert len(verdicts) == 2 * len(CLAIMS)
    for verdict in verdicts:
        own = [ln for ln in lines if ln["line"] == "block" and ln["claim"] == verdict["claim"]]
        assert int(verdict["blocks"]) == sum(ln["source"] == verdict["source"] for ln in own)
    assert all(None not in line and None not in line.values() for line in lines)


def test_in_brief() -> None:
    found = [
        Evidence(CLAIMS[0], source, "undecided", claims.Found({}, []), 0.0, 1.0)
        for source in ("records", "published")
    ]
    assert claims.brief(found) == [f"{CLAIMS[0].sentence} records: undecided, published: undecided"]
