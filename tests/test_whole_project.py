"""The whole project, small, on the path that every run takes: read this one first."""

import numpy as np
from rich.console import Console

from icre_jax.data.ready import prepare_data
from icre_jax.engine.checkpoint.variables import read_variables
from icre_jax.engine.evaluator import evaluate_checkpoint
from icre_jax.engine.export import export, first_images
from icre_jax.engine.forward import embed_step
from icre_jax.evals.results import read_results
from icre_jax.machine.screen import Screen
from icre_jax.models.network import build_network
from icre_jax.settings import from_json, parse
from icre_jax.training.loop import train_and_evaluate


def test_from_people_that_are_rendered_to_a_network_that_is_taken_away(config, tmp_path):
    # configs/synthetic.py with a network of a few thousand parameters (tests/conftest.py): full ICRE, two epochs.
    config.data.data_dir, config.data.prepared_dir = str(tmp_path / "people"), str(tmp_path / "records")
    config.data.store_resized = True  # as the demo does
    config.schedule.num_epochs = 2
    settings = parse(config)
    assert settings.model.mpfr.enabled
    assert settings.model.sdce.enabled
    assert settings.loss.icg_weight > 0
    quiet = Console(quiet=True)

    # People are rendered into image files as SYSU-MM01 has them; every file is checked and written into records.
    prepared = prepare_data(settings.data, Screen(quiet))
    assert {split: len(np.unique(index.pid)) for split, index in prepared.index.items()} == {
        "train": 6, "val": 2, "query": 4, "gallery": 4,
    }  # fmt: skip

    # Balanced batches -> network -> losses -> update, scored before, on the way and after; then the report.
    run = tmp_path / "run"
    outcome = train_and_evaluate(settings, run, console=quiet)
    results, provenance = read_results(run)
    assert [result.setting for result in results] == ["all/single", "all/multi", "indoor/single", "indoor/multi"]
    assert (results[0].dataset, provenance["data_fingerprint"]) == ("synthetic people", prepared.fingerprint)
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")

    # The same command again continues where the run stopped: here at its end. A checkpoint scores what its run scored.
    assert train_and_evaluate(settings, run, console=quiet) == outcome
    assert evaluate_checkpoint(run, step=None, out=tmp_path / "again", listener=Screen(quiet)) == results

    # The network as a folder of its own gives the same embeddings to whoever loads it.
    trained = export(run, tmp_path / "exported", step=None, listener=Screen(quiet))
    loaded = from_json((tmp_path / "exported" / "config.json").read_text(encoding="utf-8"))
    network = build_network(loaded, num_classes=len(trained.class_pids))
    variables = read_variables(tmp_path / "exported" / "variables")
    for modality, images in first_images(prepared, loaded.data.image_size).items():
        ours = embed_step(trained.variables, images, network=trained.network, modality=modality)
        theirs = embed_step(variables, images, network=network, modality=modality)
        np.testing.assert_array_equal(theirs, ours)
