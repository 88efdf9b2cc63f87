"""Manifests describe the real recordings, and a wrong manifest is refused with a reason."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import wfdb

from ecg_shock.data.manifests import data_dir, load_manifest, resource_dir
from ecg_shock.rhythms import RHYTHMS, UNUSABLE

DIGEST = "0" * 64
EXTRA = {"ludb": 200, "qtdb": 66, "challenge-2017": 1184, "challenge-2011": 150, "aami-ec13": 6}
VALID = f"""
name = "tiny"
title = "Tiny"
version = "1"
licence = "CC0"
citation = "Nobody, 2020."
guard_s = 2
[rhythm_codes]
"(VF" = "vf"
[patients]
"r2" = "r1"
"r3" = "other/r9"
[files]
"r1.hea" = {{ bytes = 3, sha256 = "{DIGEST}" }}
"r2.hea" = {{ bytes = 3, samples_sha256 = "{DIGEST}" }}
"r3.hea" = {{ bytes = 4, sha256 = "{DIGEST}" }}
"""


@pytest.fixture
def manifest_path(tmp_path: Path) -> Path:
    """Path of a valid manifest."""
    path = tmp_path / "tiny.toml"
    path.write_text(VALID, encoding="utf-8")
    return path


def test_digest_of_the_list_is_of_every_file(manifest_path: Path) -> None:
    """The digest of a line per file, sorted by name, changes with name, size and digest, but not with the order."""
    listed = "".join(f"r{i}.hea {3 if i < 3 else 4} {DIGEST}\n" for i in (1, 2, 3))
    digest = hashlib.sha256(listed.encode()).hexdigest()
    assert load_manifest(manifest_path).files_sha256 == digest
    first = f'"r1.hea" = {{ bytes = 3, sha256 = "{DIGEST}" }}\n'
    moved = VALID.replace(first, "") + first
    others = [VALID.replace("bytes = 4", "bytes = 5"), VALID.replace(DIGEST, "1" * 64), VALID.replace("r3", "r4")]
    found = []
    for text in (moved, *others):
        manifest_path.write_text(text, encoding="utf-8")
        found.append(load_manifest(manifest_path).files_sha256)
    assert found[0] == digest
    assert len(set(found)) == 4


@pytest.mark.recordings
@pytest.mark.parametrize("name", ["vfdb", "cudb", "mitdb", "nstdb", *EXTRA])
def test_manifest_agrees_with_the_real_recordings(name: str, recordings_dir: Path) -> None:
    """Sizes, digests and WFDB's own decoding of the samples are those that the manifest pins."""
    folder = recordings_dir / name
    if not folder.is_dir():
        pytest.skip(f"{name} is not among the recordings")
    manifest = load_manifest(name)
    on_disk = {path.name for path in folder.iterdir() if path.suffix in (".dat", ".mat", ".hea", ".atr")}
    assert set(manifest.files) == on_disk
    for file, entry in manifest.files.items():
        content = (folder / file).read_bytes()
        assert len(content) == entry.bytes, file
        if entry.sha256 is not None:
            assert hashlib.sha256(content).hexdigest() == entry.sha256, file
        elif entry.header_sha256 is not None:
            header = wfdb.rdheader(str(folder / Path(file).stem))
            lines = [f"{header.n_sig}\t{header.fs:g}\t{header.sig_len}"]
            for i in range(header.n_sig):
                said = (header.file_name[i], header.fmt[i], f"{header.adc_gain[i]:g}", header.baseline[i])
                lines.append("\t".join(map(str, (*said, header.units[i], header.checksum[i], header.sig_name[i]))))
            assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == entry.header_sha256, file
        else:
            samples = wfdb.rdrecord(str(folder / Path(file).stem), physical=False).d_signal
            assert hashlib.sha256(samples.astype("<i2").tobytes()).hexdigest() == entry.samples_sha256, file


@pytest.mark.recordings
@pytest.mark.parametrize("name", ["vfdb", "cudb", "nstdb"])
def test_every_rhythm_code_of_the_real_annotations_is_read(name: str, recordings_dir: Path) -> None:
    """The manifest lists all codes of rhythm changes, and no others."""
    manifest = load_manifest(name)
    used = set()
    for path in (recordings_dir / name).glob(f"*.{manifest.annotator}"):
        annotation = wfdb.rdann(str(path.with_suffix("")), manifest.annotator, return_label_elements=["label_store"])
        notes = (note.rstrip("\0").strip() for note in annotation.aux_note)
        used |= {note for note in notes if note.startswith("(")}
    assert used == set(manifest.rhythm_codes)


def test_packaged_manifests_cover_the_databases() -> None:
    """The numbers of records are those that the databases' descriptions give."""
    names = [path.stem for path in resource_dir("data_manifests").glob("*.toml")]
    records = {name: len(load_manifest(name).records) for name in names}
    assert records == {"vfdb": 22, "cudb": 35, "mitdb": 48, "nstdb": 4, **EXTRA}


@pytest.mark.parametrize("name", ["vfdb", "cudb", "mitdb", "nstdb", *EXTRA])
def test_packaged_manifest_is_complete(name: str) -> None:
    """Every record has its samples, every rhythm a known name, and the licence, DOI and both citations are given."""
    manifest = load_manifest(name)
    assert manifest.name == name
    assert all({f"{record}.dat", f"{record}.mat"} & set(manifest.files) for record in manifest.records)
    assert set(manifest.record_labels) == (set(manifest.records) if name in EXTRA else set())
    assert set(manifest.rhythm_codes.values()) <= {*RHYTHMS, *UNUSABLE}
    assert manifest.doi.startswith("10.13026/")
    assert "ODC-By-1.0" in manifest.licence
    assert len(manifest.citation.splitlines()) == 2
    assert manifest.url.startswith(f"https://physionet.org/files/{name}/{manifest.version}/")


@pytest.mark.parametrize(
    ("database", "record", "patient"),
    [
        ("mitdb", "201", "mitdb/201"),
        ("mitdb", "202", "mitdb/201"),
        ("mitdb", "118", "mitdb/118"),
        ("nstdb", "118e_6", "mitdb/118"),
        ("vfdb", "418", "vfdb/418"),
    ],
)
def test_patient_of(database: str, record: str, patient: str) -> None:
    """Records of one subject have one patient, across databases too."""
    assert load_manifest(database).patient_of(record) == patient


def test_patient_of_an_unknown_record_is_an_error() -> None:
    """A record that the database lacks has no patient."""
    with pytest.raises(ValueError, match=r"mitdb has no record '110'; it has 100, 101"):
        load_manifest("mitdb").patient_of("110")


def test_own_manifest(manifest_path: Path) -> None:
    """The path of one's own manifest works as text and as a Path."""
    manifest = load_manifest(manifest_path)
    assert manifest == load_manifest(str(manifest_path))
    assert manifest.records == ("r1", "r2", "r3")
    assert [manifest.patient_of(record) for record in manifest.records] == ["tiny/r1", "tiny/r1", "other/r9"]
    assert manifest.total_bytes == 10
    assert (manifest.guard_s, manifest.annotator, manifest.url) == (2.0, "atr", "")


def test_unknown_database_lists_the_known_ones() -> None:
    """The error for an unknown name lists the known ones."""
    with pytest.raises(ValueError, match="unknown database 'vfbd'; known are aami-ec13, challenge-2011, .*, vfdb"):
        load_manifest("vfbd")


@pytest.mark.parametrize(
    "name",
    [
        "../r1.dat",
        "sub/r1.dat",
        "sub\\\\r1.dat",
        "/etc/passwd",
        "C:r1.dat",
        "..",
        ".",
        "",
        ".hidden",
        "r1..dat",
        "r1.dat.",
        "r1\\u0000.dat",
        "r1.dat\\n",
        "r1 .dat",
    ],
)
def test_file_name_that_could_leave_the_folder_is_refused(name: str, manifest_path: Path) -> None:
    """Only plain names pass, for files and for the database, whose folder they lie in."""
    for right in ('"r1.hea" =', 'name = "tiny"'):
        wrong = right.replace("r1.hea", name).replace("tiny", name)
        manifest_path.write_text(VALID.replace(right, wrong), encoding="utf-8")
        with pytest.raises(ValueError, match="is not allowed as a name of a file or database"):
            load_manifest(manifest_path)


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ('title = "Tiny"', 'titel = "Tiny"', r"titel is unknown"),
        ('title = "Tiny"', "", r"title is missing"),
        ("bytes = 4", "byte = 4", r"files\.r3\.hea\.bytes is missing"),
        ("bytes = 4,", "bytes = 4, md5 = 1,", r"files\.r3\.hea\.md5 is unknown"),
        ("bytes = 4", "bytes = 0", r"files\.r3\.hea.* bytes is 0"),
        ("bytes = 3, samples", "bytes = 4, samples", r"files\.r2\.hea.* must be a multiple of 3"),
        (f', samples_sha256 = "{DIGEST}"', "", r"files\.r2\.hea.* give one of sha256, samples_sha256"),
        (DIGEST, DIGEST[1:], r"files\.r1\.hea.* is not a SHA-256"),
        ('"(VF" = "vf"', '"(VF" = "fibrillation"', r"gives '\(VF' the rhythm 'fibrillation'; allowed are vf, vt"),
        ('"r2" = "r1"', '"r7" = "r1"', r"\[patients\] names the record 'r7'"),
        (
            "[patients]",
            '[record_labels]\n"r7" = "(VF"\n[patients]',
            r"record_labels\] names the record 'r7', but \[files\] has no r7",
        ),
        (
            "[patients]",
            '[record_labels]\n"r1" = "(VT"\n[patients]',
            r"gives 'r1' the code '\(VT', which is not in \[rhythm_codes\]",
        ),
        (
            "[patients]",
            '[record_labels]\n"r1" = []\n[patients]',
            r"'r1' the start times \[\] s; the first must be 0",
        ),
        ("[patients]", '[record_labels]\n"r1" = [[1, "(VF"]]\n[patients]', r"'r1' the start times \[1\.0\] s"),
        ("[patients]", '[record_labels]\n"r1" = [[0, "(VF"], [0, "(VF"]]\n[patients]', r"they must increase"),
        ("[patients]", '[record_labels]\n"r1" = ""\n"r2" = ""\n[patients]', r"gives no code for 'r1' and 1 more"),
        ('"other/r9"', '"r2"', r"gives 'r3' the patient 'r2', but 'r2' has the patient 'r1'; write r3 = 'r1'"),
        ('"other/r9"', '"a/b/c"', r"the patient 'a/b/c'; write 'record' or 'database/record'"),
        ("guard_s = 2", "guard_s = -1", r"guard_s is -1"),
        ("guard_s = 2", "guard_s = nan", r"guard_s is nan"),
        ("guard_s = 2", "guard_s = ", r"is not valid TOML"),
        (VALID[VALID.index('"r1.hea"') :], "", r"\[files\] is empty; `ecg-shock manifest FOLDER`"),
    ],
)
def test_wrong_manifest_is_refused(right: str, wrong: str, message: str, manifest_path: Path) -> None:
    """The error names the manifest, the key and what is wrong with it."""
    text = VALID.replace(right, wrong, 1)
    assert text != VALID
    manifest_path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"tiny.toml.*{message}"):
        load_manifest(manifest_path)


def test_one_fault_in_every_file_is_named_three_times(manifest_path: Path) -> None:
    """A manifest of many files has one line of error, not one for each file."""
    files = "".join(f'"r{i}.hea" = {{ bytes = 3, sha256 = "{DIGEST}", md5 = 1 }}\n' for i in range(50))
    manifest_path.write_text(VALID[: VALID.index("[patients]")] + "[files]\n" + files, encoding="utf-8")
    with pytest.raises(ValueError, match=r"r0\.hea\.md5 is unknown;.*r2\.hea\.md5 is unknown; and 47 more$"):
        load_manifest(manifest_path)


def test_missing_manifest_says_how_to_write_one(tmp_path: Path) -> None:
    """The error names the path and the command that writes a manifest."""
    with pytest.raises(FileNotFoundError, match=r"no manifest .*mine\.toml; .*`ecg-shock manifest FOLDER`"):
        load_manifest(tmp_path / "mine.toml")


def test_data_dir_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The argument takes precedence over the environment, and the environment over the cache."""
    monkeypatch.delenv("ECG_SHOCK_DATA", raising=False)
    assert data_dir().name == "ecg_shock"
    monkeypatch.setenv("ECG_SHOCK_DATA", str(tmp_path))
    assert data_dir() == tmp_path
    assert data_dir(tmp_path / "mine") == tmp_path / "mine"
