"""`rbft predict`: classify videos with a finished run, by nothing but what its folder recorded."""

from rbft.predict.answers import Answer, Moment, Rule
from rbft.predict.classifier import Classifier
from rbft.predict.inputs import VideoInput, expand
from rbft.predict.windows import Windows

__all__ = ["Answer", "Classifier", "Moment", "Rule", "VideoInput", "Windows", "expand"]
