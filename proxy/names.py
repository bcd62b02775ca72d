"""Rules for names, with Milvus's wordings."""

import re

from core.errors import InvalidArgument
from core.limits import NAME_LENGTH_MAX

FIRST = re.compile(r"[A-Za-z_]")
REST = re.compile(r"[A-Za-z0-9_]*")


def check_collection_name(name: str) -> None:
    if not name:
        raise InvalidArgument("collection name should not be empty: invalid parameter")
    start = f"Invalid collection name: {name}."
    if len(name) > NAME_LENGTH_MAX:
        raise InvalidArgument(
            f"{start} the length of a collection name must be less than {NAME_LENGTH_MAX} characters: invalid parameter"
        )
    if not FIRST.match(name):
        raise InvalidArgument(
            f"{start} the first character of a collection name must be an underscore or letter: invalid parameter"
        )
    if not REST.fullmatch(name):
        raise InvalidArgument(
            f"{start} collection name can only contain numbers, letters and underscores: invalid parameter"
        )


def check_partition_name(name: str) -> None:
    start = f"Invalid partition name: {name}."
    if not name:
        raise InvalidArgument(f"{start} Partition name should not be empty.")
    if len(name) > NAME_LENGTH_MAX:
        raise InvalidArgument(f"{start} The length of a partition name must be less than {NAME_LENGTH_MAX} characters.")
    if not FIRST.match(name):
        raise InvalidArgument(f"{start} The first character of a partition name must be an underscore or letter.")
    if not REST.fullmatch(name):
        raise InvalidArgument(f"{start} Partition name can only contain numbers, letters and underscores.")


def check_field_name(name: str) -> None:
    start = f"Invalid field name: {name}."
    if not name:
        raise InvalidArgument("field name should not be empty: invalid parameter")
    if len(name) > NAME_LENGTH_MAX:
        raise InvalidArgument(f"{start} The length of a field name must be less than {NAME_LENGTH_MAX} characters.")
    if not FIRST.match(name):
        raise InvalidArgument(f"{start} The first character of a field name must be an underscore or letter.")
    if not REST.fullmatch(name):
        raise InvalidArgument(f"{start} Field name can only contain numbers, letters, and underscores.")


def check_index_name(name: str) -> None:
    if not name:
        return
    start = f"Invalid index name: {name}."
    if len(name) > NAME_LENGTH_MAX:
        raise InvalidArgument(f"{start} The length of a index name must be less than {NAME_LENGTH_MAX} characters.")
    if not FIRST.match(name):
        raise InvalidArgument(f"{start} The first character of a index name must be an underscore or letter.")
    if not REST.fullmatch(name):
        raise InvalidArgument(f"{start} Index name can only contain numbers, letters, and underscores.")
