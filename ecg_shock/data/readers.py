"""Read a recording in any supported format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecg_shock.data.arrays import read_mat, read_npy
from ecg_shock.data.edf_files import open_edf
from ecg_shock.data.manifests import data_dir, resource_dir
from ecg_shock.data.recordings import MV_PER_UNIT, Recording, check_fs
from ecg_shock.data.signal_files import WHAT_TO_DO, SignalFile, build_recording, check_agreement, choose_channels
from ecg_shock.data.tables import read_csv
from ecg_shock.data.wfdb_files import find_wfdb_header, open_wfdb

PIECE_SAMPLES = 2**20  # samples of each channel that are read at a time, to save memory
TEXT = (".csv", ".tsv", ".txt")


def read_record(
    path: str | Path,
    *,
    fs: float | None = None,
    units: str | None = None,
    leads: Sequence[str] | None = None,
    delimiter: str | None = None,
    decimal: str | None = None,
) -> Recording:
    """Read an ECG recording in any supported format.

    ============  ========================================================================================
    Format        What is read
    ============  ========================================================================================
    WFDB          Give the path of the record without suffix, or of its ``.hea``, its ``.dat`` or (as in the
                  PhysioNet challenges) its ``.mat``. The header must be in the same folder. All signal
                  formats except 8 are read, including FLAC. Gaps between segments become NaN.
    EDF, BDF      ``.edf`` and ``.bdf``, including EDF+ and BDF+. Annotations are ignored.
    CSV           ``.csv``, ``.tsv`` or ``.txt``: one column per lead, with or without a row of names. Columns
                  are separated by comma, semicolon, tab, ``|`` or spaces. Numbers have decimal points or
                  decimal commas. An empty cell or ``nan`` is a missing sample.
    NumPy         ``.npy``: shape (n_samples,) or (n_samples, n_leads).
    MATLAB        ``.mat`` of version 5 to 7 with one array, of the same shapes as for NumPy. A ``.mat`` with a
                  ``.hea`` of the same name is read as WFDB.
    ============  ========================================================================================

    From WFDB, EDF and BDF files only the channels in V, mV or µV are returned. File sizes and checksums must match the
    header. A channel that cannot be read, for example because its file is missing, is excluded with a warning if other
    channels can be read.

    Parameters
    ----------
    path : str or pathlib.Path
        The file or WFDB record. A relative path that does not exist, such as ``"vfdb/426"``, is looked up in the data
        folder: ``ECG_SHOCK_DATA``, else the cache that ``ecg-shock fetch`` fills.
    fs : float, optional
        Sampling rate in Hz. Required for CSV, NumPy and MATLAB files. For other formats it may be omitted, or must
        match the header.
    units : {"mV", "uV", "V"}, optional
        Unit of the samples. Required for CSV, NumPy and MATLAB files, and for channels to which the header gives no
        unit or an unknown unit such as "mcV". Otherwise it may be omitted, or must match the header.
    leads : sequence of str, optional
        Names of the leads to return, in this order; all by default. A lead without a name is named after its column
        number: ``"1"``, ``"2"`` … If two leads are named ``"ECG"``, the second is renamed to ``"ECG-2"``.
    delimiter : str, optional
        Delimiter between the columns of a CSV file; detected if not given.
    decimal : {".", ","}, optional
        Decimal sign of a CSV file; detected if not given.

    Returns
    -------
    Recording
        The signal as float32 in mV, NaN where a sample is missing. It has no episodes and no beats.

    Raises
    ------
    OSError
        If `path` exists neither as given nor in the data folder.
    TypeError
        If an argument or the data has a wrong type.
    ValueError
        If the file is damaged, does not match its header or the arguments, or has no voltage channel, or if a required
        argument is missing.

    Notes
    -----
    - A WFDB gain of 0 means that the record is not calibrated. As in the WFDB library, 200 units/mV are assumed, and
      a warning is logged.
    - A WFDB checksum of 0 is not checked, because some programs always write 0.
    - If a WFDB header gives no number of samples or 0, or an EDF header gives -1 data records, the length is computed
      from the size of the file.
    - WFDB signals with skew or in format 8, and EDF+ files with gaps in time, raise ValueError.
    - If some column names of a table are ECG leads, such as "ECG" or "II", only those columns are read.
    - A table column is not read as a lead if its values never fall, or if it restarts like a counter. If its name does
      not mean time, and no column has the name of an ECG lead, a ValueError asks for `leads`.
    - The sampling rate in a table, from a time column or a comment, and its units must match the arguments.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/ecg.npy", np.zeros(1250))
    ...     read_record(f"{folder}/ecg.npy", fs=250, units="uV").duration_s
    5.0
    """
    check_arguments(fs, units)
    if isinstance(leads, str):
        raise TypeError(f"leads is the text {leads!r}; give a list of names, leads=[{leads!r}]")
    path = find_recording(path)
    check_text_options(path, delimiter, decimal)
    file = open_file(path, units)
    if file is not None:
        chosen = choose_channels(file, leads)
        check_agreement(file, chosen, fs, units)
        file.warn(chosen)
        channels = [file.channels[i] for i in chosen]
        try:
            signal = np.empty((channels[0].n_samples, len(chosen)), np.float32)
        except MemoryError:
            raise ValueError(
                f"{path} does not fit into memory ({channels[0].n_samples:,} samples per lead); choose fewer leads "
                "with leads=, or use ecg_shock.scan, which reads it in pieces"
            ) from None
        done = 0
        for piece in file.pieces(chosen, PIECE_SAMPLES):
            signal[done : done + len(piece)] = piece
            done += len(piece)
        return build_recording(path, signal, channels[0].fs, [channel.name for channel in channels])
    suffix = path.suffix.lower()
    if suffix not in (*TEXT, ".npy", ".mat"):
        raise ValueError(
            f"{path} has the unknown suffix {suffix!r}; allowed are .edf, .bdf, .csv, .tsv, .txt, .npy, .mat, and a "
            "WFDB record with its .hea in the same folder"
        )
    if fs is None or units is None:
        raise ValueError(
            f"{path} does not state its sampling rate and unit; give fs= (--fs) in Hz and units= (--units), "
            "such as 'mV'"
        )
    if suffix in TEXT:
        return read_csv(path, fs, units, leads, delimiter, decimal)
    return (read_npy if suffix == ".npy" else read_mat)(path, fs, units, leads)


def open_file(path: Path, units: str | None) -> SignalFile | None:
    """Open a WFDB, EDF or BDF file that `find_recording` returned; return None for other formats.

    Raise OSError or ValueError if the file cannot be read.
    """
    if path.suffix == ".hea":
        return open_wfdb(path, units)
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty. {WHAT_TO_DO}")
    return open_edf(path, units) if path.suffix.lower() in (".edf", ".bdf") else None


def check_text_options(path: Path, delimiter: str | None, decimal: str | None) -> None:
    """Raise ValueError if a delimiter or decimal sign is given for a file that is not a text table."""
    if path.suffix.lower() not in TEXT and (delimiter is not None or decimal is not None):
        raise ValueError(f"{path} is not a text table; remove delimiter= (--delimiter) and decimal= (--decimal)")


def check_arguments(fs: float | None, units: str | None) -> None:
    """Raise TypeError or ValueError if `fs` is not a number above 0, or `units` is unknown."""
    if fs is not None:
        check_fs(fs)
    if units is not None and units not in MV_PER_UNIT:
        raise ValueError(f"units {units!r} are unknown; allowed are {tuple(MV_PER_UNIT)}")


def find_recording(path: str | Path) -> Path:
    """Return the file of a recording, given its path or its record name.

    A path that exists is used as it is. Otherwise a relative path without ``..`` is looked up in the data folder.

    Parameters
    ----------
    path : str or pathlib.Path
        As for `read_record`.

    Returns
    -------
    pathlib.Path
        The ``.hea`` of a WFDB record; for other formats the file itself.

    Raises
    ------
    IsADirectoryError
        If the path is a folder.
    FileNotFoundError
        If the file is neither at the path nor in the data folder.
    """
    path = Path(path)
    if found := find_wfdb_header(path) or (path if path.is_file() else None):
        return found
    missing, is_folder = f"{path} is missing, and there is no {path}.hea either; check the path", path.is_dir()
    if not path.anchor and ".." not in path.parts:
        folder = data_dir()
        named = folder / path
        if found := find_wfdb_header(named) or (named if named.is_file() else None):
            return found
        public = [manifest.stem for manifest in resource_dir("data_manifests").glob("*.toml")]
        database = path.parts[0] if path.parts and path.parts[0] in public else "vfdb"
        missing = (
            f"neither {path} nor {path}.hea is in {Path.cwd()} or in the data folder {folder}; "
            f"check the path, or fetch a public database, for example with: ecg-shock fetch {database}"
        )
        is_folder = is_folder or named.is_dir()
    if is_folder:
        raise IsADirectoryError(f"{path} is a folder; give the path of one recording in it")
    raise FileNotFoundError(missing)
