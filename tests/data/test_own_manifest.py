"""A folder of one's own is described as a manifest, and databases without annotations load through it."""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import wfdb

from ecg_shock.data.datasets import DataConfig, load_windows
from ecg_shock.data.manifests import Manifest, load_manifest
from ecg_shock.data.own_manifest import describe_folder
from ecg_shock.data.windows import ARRAY_FIELDS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def write_labels(manifest: Manifest, path: Path) -> Path:
    """Write the labels of a manifest's records as a CSV file."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["record", "start_s", "code"])
        for record in manifest.records:
            writer.writerows([record, start_s, code] for start_s, code in manifest.labels_of(record))
    return path


def assert_same_windows(*manifests: str | Path, folder: Path | None = None) -> None:
    """Check that two manifests give the same windows, whatever the order of their records."""
    found = [load_windows(DataConfig(databases=(str(manifest),)), folder) for manifest in manifests]
    assert len(found[0]) > 0
    ordered = [windows.select(np.lexsort((windows.start_s, windows.record))) for windows in found]
    for field in ARRAY_FIELDS:
        np.testing.assert_array_equal(*(getattr(windows, field) for windows in ordered))


@pytest.mark.recordings
@pytest.mark.parametrize("name", ["ludb", "aami-ec13", pytest.param("challenge-2017", marks=pytest.mark.slow)])
def test_databases_without_annotations_load_as_ones_own(name: str, recordings_dir: Path, tmp_path: Path) -> None:
    """Files, sums and windows are those of the manifest in the package, once the codes are explained."""
    known = load_manifest(name)
    found = describe_folder(recordings_dir / name, write_labels(known, tmp_path / "labels.csv"))
    assert found.not_here == 0
    content = tomllib.loads(found.to_toml())
    assert content["files"] == {
        file: {"bytes": entry.bytes, "sha256": entry.sha256} for file, entry in known.files.items()
    }
    assert set(content["rhythm_codes"]) <= set(known.rhythm_codes)
    assert content["patients"] == {record: record for record in known.records}
    completed = {"rhythm_codes": dict(known.rhythm_codes), "patients": dict(known.patients), "guard_s": known.guard_s}
    path = tmp_path / "own.toml"
    path.write_text(tomli_w.dumps(content | completed), encoding="utf-8")
    assert_same_windows(name, path, folder=recordings_dir)


@pytest.mark.recordings
def test_codes_of_annotations_are_those_of_the_database(recordings_dir: Path) -> None:
    """All codes of vfdb are found, and the standard ones are explained as its own manifest does."""
    known = load_manifest("vfdb")
    found = describe_folder(recordings_dir / "vfdb")
    assert found.rhythms == {code: known.rhythm_codes[code] for code in found.codes}
    assert set(found.codes) == set(known.rhythm_codes)
    assert (found.annotator, len(found.annotated), found.labels) == ("atr", 22, {})
    assert {file.name for file in found.files} == set(known.files)


def test_unknown_code_and_missing_label_are_left_to_the_owner(own_manifest: Path, tmp_path: Path) -> None:
    """They are empty in the manifest, which is refused until they are written; then it loads like any other."""
    labels = tmp_path / "labels.csv"
    rows = [f"r{number},{'my VT' if number == 3 else 'normal_sinus'}" for number in range(11)]
    labels.write_text("\n".join([*rows, "elsewhere,normal_sinus", ""]))
    found = describe_folder(tmp_path / "data" / "mine", labels)
    assert (found.not_here, found.codes) == (1, {"normal_sinus": 10, "my VT": 1})
    path = tmp_path / "new.toml"
    text = found.to_toml()
    for right, wrong in (
        ('"my VT" = "vt"', r"\[rhythm_codes\] does not say what 'my VT' means; allowed are vf, "),
        ('r11 = "normal_sinus"', r"\[record_labels\] gives no code for 'r11'"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=wrong):
            load_manifest(path)
        empty = right.partition(" = ")[0] + ' = ""'
        assert text.count(empty) == 1
        text = text.replace(empty, right)
    path.write_text(text)
    path.write_text(text.replace('r5 = "r5"', 'r5 = "else/where"').replace('r2 = "r2"', 'r2 = "r1"'))
    assert_same_windows(path, own_manifest)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("r1", r"labels\.csv, line 2: 'r1' is not a label; write record,code or record,start_s,code"),
        ("r1,soon,(N", "line 2: 'r1,soon,\\(N' is not a label"),
        ("r1,", "line 2: 'r1,' is not a label"),
        ("r1;(N", "line 2: 'r1;\\(N' is not a label"),
        ("r1,0,(N,sure", "is not a label"),
    ],
)
def test_wrong_label_is_refused(own_manifest: Path, tmp_path: Path, line: str, message: str) -> None:
    """The error names the line, and what to write."""
    (tmp_path / "labels.csv").write_text(f"record,code\n{line}\n")
    with pytest.raises(ValueError, match=message):
        describe_folder(tmp_path / "data" / "mine", tmp_path / "labels.csv")


def test_record_with_annotations_and_a_label_is_refused(own_manifest: Path, tmp_path: Path) -> None:
    """It is not certain which of both is meant; of a beat detector's annotations no label is expected."""
    folder = tmp_path / "data" / "mine"
    (tmp_path / "labels.csv").write_text("r1,(N\n")
    wfdb.wrann("r1", "ann", np.array([1]), symbol=["+"], aux_note=["(SVTA"], write_dir=str(folder))
    with pytest.raises(ValueError, match=r"labels 'r1', which also has the annotation file r1\.ann; remove"):
        describe_folder(folder, tmp_path / "labels.csv")
    found = describe_folder(folder)
    assert (found.annotator, found.annotated, found.rhythms) == ("ann", {"r1"}, {"(SVTA": "svt"})


def test_folder_that_a_manifest_cannot_describe(own_manifest: Path, tmp_path: Path) -> None:
    """Names that could leave the folder, missing files and folders without records are named."""
    folder = tmp_path / "data" / "mine"
    with pytest.raises(ValueError, match=r"data has no WFDB header \(\.hea\); 12 are in folders below it"):
        describe_folder(folder.parent)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        describe_folder(tmp_path / "nowhere")
    spaced = tmp_path / "my folder"
    shutil.copytree(folder, spaced)
    with pytest.raises(ValueError, match="'my folder' is not allowed as a name"):
        describe_folder(spaced)
    header = folder / "r1.hea"
    text = header.read_text()
    header.write_text(text.replace("r1.dat", "../r1.dat"))
    with pytest.raises(ValueError, match="names a file in another folder"):
        describe_folder(folder)
    header.write_text(text)
    (folder / "r1.dat").rename(folder / "r 1.dat")
    with pytest.raises(FileNotFoundError, match=r"names the signal file r1\.dat, which is missing"):
        describe_folder(folder)
