"""The mean over RegDB's trials, by hand and from the command line."""

import json

import numpy as np
import pytest

from icre_jax.errors import InputError
from icre_jax.evals.average import average, average_runs
from icre_jax.evals.results import METRICS, ProtocolResult, read_results, write_results
from tests.conftest import refused, run_command
from tests.tables import format_table


def result(rank1: float, *, num_trials: int = 1, dataset: str = "RegDB") -> ProtocolResult:
    mean = dict.fromkeys(METRICS, rank1)
    return ProtocolResult(
        protocol="RegDB",
        setting="visible_to_infrared",
        dataset=dataset,
        gallery_source="all images",
        direction="visible->infrared",
        feature="embeddings",
        flip=False,
        reranking=False,
        num_trials=num_trials,
        num_queries=2060,
        num_valid_queries=2060,
        mean=mean | {"mAP": rank1 / 2},
        std=dict.fromkeys(METRICS, 0.0),
        cmc=[rank1] * 20,
        chance=0.005,
    )


def facts(trial: int | None, **more) -> dict:
    settings = {
        "name": f"regdb_{trial}",
        "data": {"trial": trial, "data_dir": f"/{trial}"},
        "loss": {"icg_weight": 1.0},
    }
    return {"trial": trial, "dataset": "RegDB", "checkpoint": "last", "config": "regdb", "settings": settings} | more


def test_mean_and_spread_by_hand():
    (mean,) = average([[result(0.2)], [result(0.4)], [result(0.6)]])
    assert mean.num_trials == 3
    np.testing.assert_allclose((mean.mean["rank1"], mean.mean["mAP"], mean.cmc[4]), (0.4, 0.2, 0.4))
    np.testing.assert_allclose((mean.std["rank1"], mean.std["mAP"]), (np.sqrt(0.08 / 3), np.sqrt(0.02 / 3)))


def test_published_means_stand_beside_the_mean_of_ten_alone():
    ten = average([[result(k / 10)] for k in range(10)])
    assert "CAJ, published" in format_table(ten)
    assert "published" not in format_table(average([[result(k / 10)] for k in range(9)]))
    assert "published" not in format_table([result(0.5)])


def test_what_has_no_mean():
    with pytest.raises(InputError, match="at least 2 runs, not 1"):
        average([[result(0.1)]])
    with pytest.raises(InputError, match="run 2, visible_to_infrared: synthetic people"):
        average([[result(0.1)], [result(0.1, dataset="synthetic people")]])
    with pytest.raises(InputError, match="run 1, visible_to_infrared: 10 trials already"):
        average([[result(0.1, num_trials=10)], [result(0.1, num_trials=10)]])
    with pytest.raises(InputError, match="run 2 has the settings ; the first has visible_to_infrared"):
        average([[result(0.1)], []])


def test_runs_that_differ_in_how_they_were_computed_have_a_mean(tmp_path):
    """Two machines, two ways to run a step: what a run may change on its way says nothing against a mean."""
    ours, theirs = facts(1), facts(2)
    for source, parallel, remat, steps in ((ours, "jit", False, 50), (theirs, "pmap", True, 10)):
        source["settings"] |= {"parallel": parallel, "model": {"remat": remat, "depth": 18}}
        source["settings"]["logging"] = {"every_steps": steps}
        source["settings"]["data"]["store_resized"] = remat
    for trial, source in ((1, ours), (2, theirs)):
        write_results(tmp_path / str(trial), [result(trial / 10)], source)
    (mean,), source = average_runs([tmp_path / "1", tmp_path / "2"])
    np.testing.assert_allclose(mean.mean["rank1"], 0.15)
    assert source["trials"] == [1, 2]
    theirs["settings"]["model"]["depth"] = 50
    write_results(tmp_path / "2", [result(0.2)], theirs)
    with pytest.raises(InputError, match=r"2: model\.depth is 50, not 18") as caught:
        average_runs([tmp_path / "1", tmp_path / "2"])
    assert "remat" not in str(caught.value)


def test_a_run_on_its_way_is_in_no_mean(tmp_path):
    """Of best checkpoints each may be of another step, and what says nothing of its step is taken as it is."""
    folders = [tmp_path / "1", tmp_path / "2"]
    for checkpoint, steps, refusal in (
        ("latest", (100, 50), "2: step is 50, not 100; train to the end"),
        ("chosen", (100, 50), "2: step is 50, not 100; train to the end"),
        ("latest", (100, 100), None),
        ("best", (100, 50), None),
        ("latest", (None, 50), None),
    ):
        for trial, (folder, step) in enumerate(zip(folders, steps, strict=True), start=1):
            write_results(folder, [result(trial / 10)], facts(trial, checkpoint=checkpoint, step=step))
        if refusal:
            with pytest.raises(InputError, match=refusal):
                average_runs(folders)
        else:
            assert average_runs(folders)[1]["steps"] == [*steps]


def test_the_command(tmp_path):
    for trial in (1, 2, 7):
        write_results(tmp_path / str(trial), [result(trial / 10)], facts(trial))
    folders = [str(tmp_path / name) for name in ("1", "2", "7")]
    process = run_command("icre_jax.average", "--workdirs", *folders, "--out", str(tmp_path / "mean"))
    assert process.returncode == 0, process.stderr
    assert "33.33 ±26.25" in process.stdout
    assert "Trials 3, 4, 5, 6, 8, 9, 10 are not among them" in process.stdout
    (mean,), source = read_results(tmp_path / "mean")
    assert mean == average([[result(trial / 10)] for trial in (1, 2, 7)])[0]
    assert source["trials"] == [1, 2, 7]
    assert (tmp_path / "mean" / "results.tex").is_file()

    def again(*folders: str):
        return run_command("icre_jax.average", "--workdirs", *folders, "--out", str(tmp_path / "x"))

    before = (tmp_path / "1" / "results.json").read_bytes()
    into = ("--out", str(tmp_path / "mean" / ".." / "1"))
    refused(run_command("icre_jax.average", "--workdirs", *folders, *into), "is one of --workdirs", "another folder")
    assert (tmp_path / "1" / "results.json").read_bytes() == before
    refused(again(folders[0], folders[0]), f"{folders[0]}: trial 1, as {folders[0]}")
    refused(again(folders[0], str(tmp_path / "absent")), "absent", "cannot be read")
    other = facts(3)
    other["settings"]["loss"]["icg_weight"] = 0.0
    write_results(tmp_path / "3", [result(0.3)], other)
    refused(again(folders[0], str(tmp_path / "3")), "3: loss.icg_weight is 0.0, not 1.0")
    write_results(tmp_path / "3", [result(0.3)], facts(3, checkpoint="best"))
    refused(again(folders[0], str(tmp_path / "3")), "3: checkpoint is best, not last")
    write_results(tmp_path / "llcm", [result(0.3)], facts(None, dataset="LLCM"))
    refused(again(folders[0], str(tmp_path / "llcm")), "LLCM has no trials of its own")
    assert not (tmp_path / "x").exists()
    assert json.loads((tmp_path / "mean" / "results.json").read_text())["results"][0]["num_trials"] == 3
