"""Rows of a local file or of a hub data set."""

from collections.abc import Iterator
from urllib.parse import quote

from longcot import rows
from longcot.errors import RowError


def read_source(
    path: str, revision: str, split: str, config: str | None = None
) -> Iterator[tuple[str, dict]]:
    """Yield (file:line, row) of a local file, or of a hub set, which is downloaded once and then
    memory-mapped: a second run needs no network."""
    if rows.is_local(path):
        yield from rows.read_rows(path)
        return
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HTTPError

    glob = config if config and config.endswith((".parquet", ".jsonl", ".jsonl.gz")) else None
    try:
        if glob:
            files = f"hf://datasets/{path}@{quote(revision, safe='')}/{glob}"
            builder = "parquet" if glob.endswith(".parquet") else "json"
            found = load_dataset(builder, data_files=files, split="train")
        else:
            found = load_dataset(path, config, split=split, revision=revision)
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise RowError(
            f"{path}: a loading script, which datasets no longer runs; set config to a glob of its "
            "files (all/test/*.parquet with revision: refs/convert/parquet), or give a local copy"
        ) from None
    except (OSError, ValueError, HTTPError, DatasetsError) as error:
        told = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RowError(
            f"{path}: cannot be read from the hub (revision {revision}, split {split}, "
            f"config {config}): {told[:300]}; check these names, or give a local copy"
        ) from None
    # Where the hub cannot be had, datasets takes whatever revision it finds in its cache.
    cached = " ".join(file["filename"] for file in found.cache_files)
    if not glob and len(revision) == 40 and revision not in cached:
        raise RowError(f"{path}: revision {revision} cannot be had, only another one: {cached}")
    for number, row in enumerate(found, 1):
        yield f"{path}:{number}", dict(row)
