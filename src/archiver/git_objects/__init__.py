"""Git's objects: their ids, the content of commits and trees, and the record of a commit.

Format: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects. Nothing here runs git.
"""

from archiver.git_objects.commit_record import (
    RECORD_MAX_BYTES,
    CommitRecord,
    CompleteRecord,
    RepositoryRecord,
    decode_record,
    expected_entry,
)
from archiver.git_objects.ids import SHA1_DIGITS, SHA256_DIGITS, new_object_hash, object_id
from archiver.git_objects.tar_stream import inject_commit_record, insert_comment
from archiver.git_objects.tree_hasher import LfsCheck, TreeHasher
from archiver.git_objects.trees import (
    EXECUTABLE,
    FILE,
    FOLDER,
    LINK,
    SUBMODULE,
    TreeEntry,
    canonical_mode,
    parse_tree,
    tree_of,
)

__all__ = [
    "EXECUTABLE",
    "FILE",
    "FOLDER",
    "LINK",
    "RECORD_MAX_BYTES",
    "SHA1_DIGITS",
    "SHA256_DIGITS",
    "SUBMODULE",
    "CommitRecord",
    "CompleteRecord",
    "LfsCheck",
    "RepositoryRecord",
    "TreeEntry",
    "TreeHasher",
    "canonical_mode",
    "decode_record",
    "expected_entry",
    "inject_commit_record",
    "insert_comment",
    "new_object_hash",
    "object_id",
    "parse_tree",
    "tree_of",
]
