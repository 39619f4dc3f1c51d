"""`python -m icre_jax.score` as a user of another code base starts it."""

import json

import numpy as np
import pytest

from icre_jax import score as command
from icre_jax.errors import InputError
from icre_jax.evals.features import read_features
from tests.conftest import ROOT, refused, run_command
from tests.test_ranking import brute_force

GOLDEN = ROOT / "tests" / "golden"
FLAGS = {"sysu": ("--protocol", "sysu_mm01"), "llcm": ("--protocol", "llcm"), "regdb": ("--protocol", "regdb")}


def write(folder, **arrays):
    """q.npz and g.npz of a small problem on which every protocol can be scored; `q_pid=None` leaves an array out."""
    values = {
        "q_features": np.array([[1, 0], [0, 1], [1, 1]], np.float32),
        "q_pid": np.array([1, 2, 3]),
        "q_camid": np.array([3, 6, 6]),
        "g_features": np.array([[1, 0], [1, 0.1], [0, 1], [1, 2], [1, 1]], np.float32),
        "g_pid": np.array([1, 2, 2, 1, 3]),
        "g_camid": np.array([2, 1, 4, 5, 5]),
    } | arrays
    flags = []
    for side, name in (("q", "query"), ("g", "gallery")):
        path = folder / f"{side}.npz"
        np.savez(path, **{k[2:]: v for k, v in values.items() if k[:2] == f"{side}_" and v is not None})
        flags += [f"--{name}", str(path)]
    return flags


@pytest.mark.parametrize("case", ["sysu0", "sysu1", "llcm0", "llcm1", "regdb0", "regdb1"])
def test_saved_answers_of_the_field_through_the_command(case, tmp_path):
    arrays = np.load(GOLDEN / "ranking.npz")
    expected = json.loads((GOLDEN / "ranking.json").read_text(encoding="utf-8"))[case]
    for side in "qg":
        names = {"features": "f", "pid": "pid", "camid": "cam"}
        keys = {name: f"{case}_{side}{short}" for name, short in names.items()}
        np.savez(tmp_path / f"{side}.npz", **{name: arrays[key] for name, key in keys.items() if key in arrays})
    files = ("--query", str(tmp_path / "q.npz"), "--gallery", str(tmp_path / "g.npz"))
    process = run_command("icre_jax.score", *FLAGS[case[:-1]], *files, "--json", str(tmp_path / "out.json"))
    assert process.returncode == 0, process.stderr
    got = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    np.testing.assert_allclose(got["cmc"], expected["cmc"], rtol=0, atol=1e-6)
    assert got["mAP"] == pytest.approx(expected["mAP"], abs=1e-6)
    assert got["mINP"] == pytest.approx(expected["mINP"], abs=1e-6)
    assert f"{100 * expected['mAP']:.2f}" in process.stdout
    assert f"{got['num_valid_queries']} of {got['num_queries']}" in process.stdout
    assert "published" not in process.stdout.lower()  # nobody knows what the features are of


def documents(tmp_path, *flags, **arrays):
    assert command.main([*write(tmp_path, **arrays), "--json", str(tmp_path / "out.json"), *flags]) == 0
    return json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))


def test_every_rule_on_paper(tmp_path, capsys):
    # Rankings: query 0 (id 1, camera 3): 1 2 3 1 2; query 1 (id 2, camera 6): 2 1 3 2 1; query 2 (id 3): 3 1 2 1 2.
    regdb = documents(tmp_path, "--protocol", "regdb")
    assert regdb["cmc"][:2] == [1, 1]
    assert regdb["mAP"] == pytest.approx(((1 + 2 / 4) / 2 + (1 + 2 / 4) / 2 + 1) / 3)
    # The place rule hides camera 2 from the query of camera 3: 2 3 1 2.
    sysu = documents(tmp_path, "--protocol", "sysu_mm01")
    assert sysu["cmc"][:3] == pytest.approx([2 / 3, 2 / 3, 1])
    assert sysu["mAP"] == pytest.approx((1 / 3 + (1 + 2 / 4) / 2 + 1) / 3)
    assert (sysu["num_queries"], sysu["num_valid_queries"]) == (3, 3)
    # Query 0 now in the camera of its nearest image: only that one disappears.
    cameras = {"q_camid": np.array([2, 6, 6])}
    kept = documents(tmp_path, "--protocol", "manifest", "--no-exclude_same_camera", **cameras)
    left_out = documents(tmp_path, "--protocol", "manifest", **cameras)
    assert kept["mAP"] == regdb["mAP"]
    assert left_out["mAP"] == sysu["mAP"]
    assert "same id and camera left out" in capsys.readouterr().out
    assert documents(tmp_path, "--protocol", "llcm", **cameras)["mAP"] == sysu["mAP"]


def test_the_switch_of_the_cmc(tmp_path):
    # The wrong id twice, then the right one: rank 3 of images, 2 of ids.
    arrays = {
        "q_features": np.array([[1.0, 0]]), "q_pid": np.array([1]), "q_camid": None, "g_camid": None,
        "g_features": np.array([[1, 0], [1, 0.1], [1, 1]]), "g_pid": np.array([2, 2, 1], np.uint8),
    }  # fmt: skip
    assert documents(tmp_path, "--protocol", "regdb", **arrays)["cmc"][:3] == [0, 0, 1]
    assert documents(tmp_path, "--protocol", "regdb", "--no-deduplicate_ids", **arrays)["cmc"][:3] == [0, 0, 1]
    deduplicated = documents(tmp_path, "--protocol", "regdb", "--deduplicate_ids", **arrays)
    assert deduplicated["cmc"] == [0] + [1] * 19
    assert deduplicated["mAP"] == pytest.approx(1 / 3)


def test_a_re_ranked_score_says_so(tmp_path, capsys):
    plain = documents(tmp_path, "--protocol", "regdb")
    assert "no re-ranking" in capsys.readouterr().out
    reranked = documents(tmp_path, "--protocol", "regdb", "--reranking")
    assert "WITH RE-RANKING" in capsys.readouterr().out
    assert (plain["reranking"], reranked["reranking"]) == (False, True)


def test_random_files_equal_a_loop_over_queries(tmp_path):
    rng = np.random.default_rng(1)
    # Few directions, so that many similarities are equal; small integers, so that float32 holds them exactly.
    arrays = {}
    for side, size, cameras in (("q", 40, (3, 6)), ("g", 60, (1, 2, 4, 5))):
        arrays[f"{side}_features"] = np.eye(4, dtype=np.float16)[rng.integers(0, 4, size)]
        arrays[f"{side}_pid"] = rng.integers(0, 12, size).astype(np.int32)
        arrays[f"{side}_camid"] = rng.choice(cameras, size)
    got = documents(tmp_path, "--protocol", "sysu_mm01", **arrays)
    query, gallery = (
        read_features(tmp_path / f"{side}.npz", side="query", cameras=None, needs_camid=True) for side in "qg"
    )
    expected = brute_force(
        query.features @ gallery.features.T, query, gallery, lambda qp, qc, gp, gc: (qc, gc) == (3, 2), True, 20
    )
    np.testing.assert_allclose(got["cmc"], expected[0], atol=1e-12)
    np.testing.assert_allclose([got["mAP"], got["mINP"], got["chance"]], expected[1:4], atol=1e-12)
    assert got["num_valid_queries"] == expected[4]


def test_only_directions_count(tmp_path):
    rng = np.random.default_rng(2)
    plain = {f"{side}_features": rng.normal(size=(n, 6)) for side, n in (("q", 3), ("g", 5))}
    before = documents(tmp_path, "--protocol", "regdb", **plain)
    scaled = {name: value * 10.0 ** rng.integers(-200, 200, (len(value), 1)) for name, value in plain.items()}
    assert documents(tmp_path, "--protocol", "regdb", **scaled) == before


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"q_pid": None}, r"query file .*q\.npz lacks pid; it holds features, camid"),
        ({"g_camid": None}, r"gallery file .* lacks camid"),
        ({"q_features": np.ones((3, 4))}, "Query features have 4 dimensions, gallery features 2"),
        ({"q_features": np.ones(3)}, r"features must be \[N, D\] with N, D > 0, not \[3\]"),
        ({"q_features": np.ones((3, 2), int)}, "features must be floats, not int64"),
        ({"q_features": np.array([[1, 0], [np.nan, 1], [1, 1]])}, "1 of 3 rows .* not finite .* first row 1"),
        ({"q_features": np.array([[1, 0], [np.inf, 1], [1, 1]])}, "not finite"),
        ({"q_pid": np.array([1, 2])}, r"pid must be \[N\], one for each row of features \[3, 2\], not \[2\]"),
        ({"q_pid": np.array([1.0, 2, 3])}, "pid must be integers, not float64"),
        ({"q_camid": np.array([[3], [6], [6]])}, r"camid must be \[N\]"),
        ({"q_camid": np.array([3, 6, 4])}, "camera 4; this protocol takes its query from camera 3, 6"),
        ({"g_camid": np.array([0, 1, 4, 5, 7])}, "camera 0, 7; this protocol takes its gallery from camera 1, 2, 4, 5"),
        ({"g_pid": np.array([7, 8, 9, 7, 8])}, "None of the 3 queries has a true match"),
        ({"q_features": np.ones((0, 2)), "q_pid": np.ones(0, int), "q_camid": np.ones(0, int)}, r"not \[0, 2\]"),
        (
            {"q_pid": np.array([1, None, 3], object)},
            "as a NumPy archive: pid: it holds objects, which would",
        ),
    ],
)
def test_files_that_cannot_be_scored(arrays, words, tmp_path):
    with pytest.raises(InputError, match=words):
        command.main(["--protocol", "sysu_mm01", *write(tmp_path, **arrays)])


def test_what_is_no_archive(tmp_path):
    flags = write(tmp_path)
    np.save(tmp_path / "bare.npy", np.ones(3))
    (tmp_path / "text.npz").write_text("features")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "half.npz").write_bytes((tmp_path / "q.npz").read_bytes()[:200])
    for name in ("bare.npy", "text.npz", "empty.npz", "half.npz", "absent.npz", "."):
        with pytest.raises(InputError, match="cannot be read as a NumPy archive"):
            command.main(["--protocol", "regdb", *flags[:2], "--gallery", str(tmp_path / name)])


def test_the_process_refuses_with_clear_words(tmp_path):
    flags = write(tmp_path, q_camid=np.array([1, 2, 3]))
    refused(run_command("icre_jax.score", "--protocol", "sysu_mm01", *flags), "camera 1, 2", "swapped")
    refused(run_command("icre_jax.score", "--protocol", "market", *flags), "market", "sysu_mm01")
    process = run_command("icre_jax.score", "--protocol", "regdb", *flags, "--json", str(tmp_path / "no" / "out.json"))
    refused(process, "Cannot write --json")
    assert process.stdout == ""  # before anything is scored
    process = run_command("icre_jax.score", "--protocol", "llcm", "--no-deduplicate_ids", *flags)
    refused(process, "--no-deduplicate_ids cannot be used with --protocol llcm", "regdb, manifest")
