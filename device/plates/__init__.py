"""What a lab says of its images: plate.csv (wells) and dataset.json (scale, modality, origin)."""

from device.plates.dataset import (
    DATASET_FILE,
    DatasetInfo,
    find_dataset_info,
    read_dataset_info,
    scale_of,
    write_dataset_info,
)
from device.plates.files import csv_lines, file_sha256, write_table, write_whole
from device.plates.table import (
    Plate,
    find_fields,
    parse_plate,
    read_plate,
    read_text,
    write_plate,
)

__all__ = [
    "DATASET_FILE",
    "DatasetInfo",
    "Plate",
    "csv_lines",
    "file_sha256",
    "find_dataset_info",
    "find_fields",
    "parse_plate",
    "read_dataset_info",
    "read_plate",
    "read_text",
    "scale_of",
    "write_dataset_info",
    "write_plate",
    "write_table",
    "write_whole",
]
