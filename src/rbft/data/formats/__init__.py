"""The data set formats, under the names a config uses (`class_path: rbft.data.formats.UCF101`)."""

from rbft.data.formats.base import DatasetFormat
from rbft.data.formats.class_folders import ClassFolders
from rbft.data.formats.conversations import Conversations
from rbft.data.formats.diving48 import Diving48
from rbft.data.formats.hmdb51 import HMDB51
from rbft.data.formats.kinetics import Kinetics
from rbft.data.formats.mmaction import MMAction
from rbft.data.formats.multihateclip import MultiHateClip
from rbft.data.formats.shapes_world import ShapesWorld
from rbft.data.formats.smarthome import SmartHomeBench
from rbft.data.formats.ssv2 import SSv2
from rbft.data.formats.table import Table
from rbft.data.formats.ucf101 import UCF101
from rbft.data.formats.videofolder import VideoFolder

__all__ = [
    "HMDB51",
    "UCF101",
    "ClassFolders",
    "Conversations",
    "DatasetFormat",
    "Diving48",
    "Kinetics",
    "MMAction",
    "MultiHateClip",
    "SSv2",
    "ShapesWorld",
    "SmartHomeBench",
    "Table",
    "VideoFolder",
]
