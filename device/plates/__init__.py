"""What a lab says of its images: plate.csv (wells) and dataset.json (scale, modality, origin)."""

from device.plates.dataset_info import (
    DATASET_FILE,
    DatasetInfo,
    read_dataset_info,
    scale_of,
    write_dataset_info,
)
from device.plates.table import COLUMNS, Plate, find_fields, read_plate, write_plate

__all__ = [
    "COLUMNS",
    "DATASET_FILE",
    "DatasetInfo",
    "Plate",
    "find_fields",
    "read_dataset_info",
    "read_plate",
    "scale_of",
    "write_dataset_info",
    "write_plate",
]
