"""Train, evaluate and use classifiers that advise a shock from an ECG.

TensorFlow is loaded only for training, search and export, not by `import ecg_shock` or `predict`.
"""

from ecg_shock.data.readers import read_record
from ecg_shock.data.recordings import Episode, Recording
from ecg_shock.evaluation.comparison import Comparison, Difference, compare_predictions
from ecg_shock.evaluation.importance import Importance, explain
from ecg_shock.evaluation.metrics import Validation
from ecg_shock.evaluation.predictions import Predictions
from ecg_shock.evaluation.validation import validate
from ecg_shock.inference.advisor import Advice, Advisor, predict, predict_many
from ecg_shock.inference.occlusion import Explanation
from ecg_shock.inference.scanning import Scan, ShockableEpisode, scan
from ecg_shock.inference.streaming import AlarmRule, Stream, StreamAdvice
from ecg_shock.preprocessing import Preprocessing

__version__ = "0.1.0"
__all__ = [
    "Advice",
    "Advisor",
    "AlarmRule",
    "Comparison",
    "Difference",
    "Episode",
    "Explanation",
    "Importance",
    "Predictions",
    "Preprocessing",
    "Recording",
    "Scan",
    "ShockableEpisode",
    "Stream",
    "StreamAdvice",
    "Validation",
    "compare_predictions",
    "explain",
    "predict",
    "predict_many",
    "read_record",
    "scan",
    "validate",
]
