"""Studies are read and checked, and a run continues only with the same study."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecg_shock.search.study import STUDY_FILE, read_study, save_study, study_names

SMALL = """
name = "small"
[data]
databases = ["synthetic"]
split = "synthetic-v1"
[search]
trials = 3
[training]
epochs = 7
learning_rate = 0.002
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Return a study's file."""
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    return file


def test_studies_of_the_package_can_be_read():
    """Every study of the package can be read, and the paper's has the paper's settings."""
    assert study_names() == ("paper", "public", "quickstart")
    studies = {name: read_study(name) for name in study_names()}
    assert {name: study.synthetic for name, study in studies.items()} == {
        "paper": False,
        "public": False,
        "quickstart": True,
    }
    paper = studies["paper"]
    assert (paper.search.trials, paper.trial_training.epochs) == (4216, 400)
    assert (paper.space.blocks, paper.space.filters, paper.space.kernels) == ((1, 7), (5, 50), (5, 100))
    rates = paper.consensus.learning_rates
    assert (len(rates), min(rates), max(rates)) == (7, 1e-5, 1e-2)
    assert paper.consensus.seeds >= 5


def test_trials_train_as_the_study_says(small: Path):
    """A trial uses [training], except for what [search] sets."""
    study = read_study(small, {"search.epochs": 2, "consensus.seeds": 1})
    assert (study.training.epochs, study.trial_training.epochs, study.consensus.seeds) == (7, 2, 1)
    assert study.trial_training.learning_rate == 0.002
    assert read_study(small).trial_training == read_study(small).training


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (SMALL.replace("trials = 3", "trials = -3"), ["search.trials", "-3", "greater than 0"]),
        (
            SMALL.replace("trials = 3", "trails = 3"),
            ["search.trails is unknown", "trials, seed", "search.trials is missing"],
        ),
        (SMALL.replace("[search]", "[serach]"), ["serach is unknown", "name, data, space, search"]),
        (SMALL.replace('"small"', '"../small"'), ["name", "'../small'"]),
        (SMALL + "\nsampler = 'best'", ["training.sampler", "'best'", "ras"]),
        (
            SMALL + "\nstratified = true",
            ["training: stratified = True is not supported any more", "the only allowed value is False"],
        ),
        (SMALL + "\n[space]\nfilters = [5, 52]", ["space", "[5, 52]", "multiples of step = 5"]),
        (SMALL + "\n[space]\nblocks = [1, 1]\nfilters = [5, 5]\nkernels = [5, 10]", ["search.trials = 3", "only 2"]),
        (SMALL + "\n[data", ["not valid TOML"]),
        ("training = 3" + SMALL.replace("[training]", ""), ["training = 3 must be a table, [training]"]),
        (
            SMALL.replace("trials = 3", "trials = 3\nstrategy = 'grid'"),
            ["search.strategy = 'grid'", "'random', 'hyperband' or 'bayesian'"],
        ),
        (
            SMALL.replace("trials = 3", "trials = 3\nstrategy = 'hyperband'\n[stopping]"),
            ["'hyperband' ends trials early itself; remove [stopping]"],
        ),
        (
            SMALL.replace("trials = 3", "trials = 3\nstrategy = 'hyperband'") + "\nschedule = 'cosine'",
            ["'hyperband' continues trainings", "use schedule = 'constant'"],
        ),
        (SMALL + "\n[stopping]\nwarm_up = 7", ["stopping.warm_up = 7 is not below the 7 epochs", "use a shorter"]),
        (
            SMALL + "\n[space]\nblocks = [7, 7]\nkernels = [50, 50]\npadding = 'valid'",
            ["no network of [space] can be built", "data.window_s = 5 s (625 samples)", "has no output"],
        ),
    ],
)
def test_errors_name_file_key_value_and_what_is_allowed(small: Path, text: str, parts: list[str]):
    """An error names the file, the key, the value and what is allowed."""
    small.write_text(text)
    with pytest.raises(ValueError, match=r"small\.toml") as caught:
        read_study(small)
    for part in parts:
        assert part in str(caught.value)


def test_unknown_study_lists_the_known():
    """The error for an unknown name lists the studies of the package."""
    with pytest.raises(FileNotFoundError, match="'quickstar'.*paper, public, quickstart"):
        read_study("quickstar")


def test_resolved_study_reads_back(small: Path, tmp_path: Path):
    """The copy in the run folder has every value, including defaults, and is the same study."""
    study = read_study(small)
    save_study(study, tmp_path)
    assert read_study(tmp_path / STUDY_FILE) == study
    assert "batch_size" in (tmp_path / STUDY_FILE).read_text()


def test_paths_are_relative_to_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A study names its manifest and split beside it, wherever the command runs; so does its copy in the run folder."""
    (tmp_path / "project").mkdir()
    file = tmp_path / "project" / "small.toml"
    file.write_text(SMALL.replace('"synthetic"', '"mine.toml", "vfdb"').replace('"synthetic-v1"', '"splits/mine.toml"'))
    monkeypatch.chdir(tmp_path)
    study = read_study(file)
    assert study.data.databases == (str(Path("project/mine.toml")), "vfdb")
    assert study.data.split == str(Path("project/splits/mine.toml"))
    run = tmp_path / "runs" / "small"
    run.mkdir(parents=True)
    save_study(study, run)
    save_study(study, run)
    assert '"../../project/mine.toml"' in (run / STUDY_FILE).read_text()
    assert read_study(run / STUDY_FILE) == study
    monkeypatch.chdir(run)
    assert read_study(STUDY_FILE).data.split == str(tmp_path / "project" / "splits" / "mine.toml")


def test_changed_study_is_refused_with_the_difference(small: Path, tmp_path: Path):
    """A run continues with the same study or more trials; any other change is an error that shows it."""
    save_study(read_study(small), tmp_path)
    save_study(read_study(small, {"search.trials": 5, "search.trials_per_process": 2}), tmp_path)
    assert read_study(tmp_path / STUDY_FILE).search.trials == 5

    with pytest.raises(ValueError, match="another study") as caught:
        save_study(read_study(small, {"search.trials": 4, "training.balanced": False}), tmp_path)
    assert "training.balanced: True in the folder, False now" in str(caught.value)
    assert "search.trials: 5 in the folder, 4 now" in str(caught.value)
    assert "epochs" not in str(caught.value)
    assert read_study(tmp_path / STUDY_FILE).search.trials == 5


def test_a_run_that_was_begun_without_newer_settings_continues(small: Path, tmp_path: Path):
    """A setting that the file in the run folder lacks has its default value; another value is a change."""
    save_study(read_study(small), tmp_path)
    kept = tmp_path / STUDY_FILE
    older = kept.read_text().replace('strategy = "random"\n', "")
    kept.write_text(older)
    save_study(read_study(small), tmp_path)
    kept.write_text(older)
    with pytest.raises(ValueError, match=r"search\.strategy: 'random' in the folder, 'bayesian' now"):
        save_study(read_study(small, {"search.strategy": "bayesian"}), tmp_path)
    with pytest.raises(ValueError, match=r"stopping\.min_trials: 'not set' in the folder, 10 now"):
        save_study(read_study(small, {"stopping.warm_up": 2}), tmp_path)


def test_study_that_is_not_utf8_is_named(small: Path):
    """A file in another encoding is an error that names it and says what to do."""
    small.write_bytes(SMALL.replace("small", "größer").encode("latin-1"))
    with pytest.raises(ValueError, match=r"small\.toml is not UTF-8 text.*save it as UTF-8"):
        read_study(small)


def test_change_in_a_section_that_is_not_a_table(small: Path):
    """The error for a change in such a section is that for the section itself."""
    small.write_text("consensus = 3" + SMALL)
    with pytest.raises(ValueError, match=r"small\.toml cannot be used:\n  consensus = 3 must be a table"):
        read_study(small, {"consensus.seeds": 1})


@pytest.mark.parametrize("content", [b"", b"{}", b"name = 'small'", b"\xff\xfe"])
def test_damaged_study_of_a_run_is_named(small: Path, tmp_path: Path, content: bytes):
    """A damaged study in a run folder is not overwritten, and the error says what to do."""
    kept = tmp_path / STUDY_FILE
    kept.write_bytes(content)
    with pytest.raises(ValueError, match=r"(?s)study is damaged.*Restore .*study\.toml.*--out"):
        save_study(read_study(small), tmp_path)
    assert kept.read_bytes() == content
