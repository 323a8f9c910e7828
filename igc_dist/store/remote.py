"""The bytes of a store in an object store: S3, Google Cloud, Azure, and compatible services. The only obstore.

Each object is written by one PUT, which appears whole or not at all; so there are no left-overs to sweep. A multipart
upload is never used: if it is interrupted, it leaves parts that no listing shows and that cost money. A PUT takes 5
GiB, twice our largest chunk. The lock needs a service with conditional PUTs (If-None-Match).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

from igc_dist.faults import fault
from igc_dist.records import ConfigError, StoreError
from igc_dist.store.admission import check_key, check_size
from igc_dist.store.objects import Objects

S = TypeVar("S")
T = TypeVar("T")

SCHEMES = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss")

_URL = re.compile(rf"(?:{'|'.join(SCHEMES)})://[\w.-]+(?:/[\w.=,+@~ -]+)*")
_OF_AZURE = re.compile(r"(abfss?://)[\w-]+@")  # before the @: the container; in other URLs a user and a password

RETRY: Any = {"retry_timeout": timedelta(seconds=60), "max_retries": 10}
"""Settings of the retries of each request, with growing pauses, for a service that restarts or asks to slow down. A
request takes 30 s at most."""

PARALLEL = 32
"""Requests at a time: at 20 ms each, the two objects of 10,000 shards are read in 13 s."""

NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "bucket does not exist")


class Remote(Objects):
    """Objects under a URL.

    Endpoint, region and credentials come from the environment, as for other tools of the service, never from the
    configuration: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ALLOW_HTTP, AWS_TIMEOUT
    (of a request, 30s); GOOGLE_*; AZURE_*.

    Raises `ConfigError` if obstore is not installed, or for a URL that is not of an object store or holds secrets.
    Every method raises `StoreError` if the service refuses or does not answer.
    """

    path: str

    def __init__(self, url: str) -> None:
        self.path = check_url(url)
        self.store = connected(self.path)

    def get(self, key: str, most: int | None = None) -> bytes | None:
        check_key(key, self.path)
        with told(self.path, f"reading {key}"):
            try:
                found = self.store.get(key)
            except FileNotFoundError as error:
                if any(words in str(error) for words in NO_BUCKET):
                    raise
                return None
            check_size(found.meta["size"], key, self.path, most)
            return bytes(found.bytes())

    def set(self, key: str, value: bytes) -> None:
        with told(self.path, f"writing {key}"):
            fault("write")
            self.store.put(key, value, use_multipart=False)

    def create(self, key: str, value: bytes) -> bool:
        from obstore.exceptions import AlreadyExistsError, BaseError

        with told(self.path, f"creating {key}"):
            try:
                self.store.put(key, value, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return self.get(key) == value  # if an answer is lost, the second try finds the object of the first
            except BaseError:
                if self.get(key) != value:  # the last answer may also be lost
                    raise
        return True

    def drop(self, key: str) -> None:
        with told(self.path, f"removing {key}"):
            try:
                self.store.delete(key)
            except FileNotFoundError:  # some services raise this
                return

    def keys(self, top: bool = False, without: Container[str] = ()) -> Iterable[str]:
        if not top:
            return self.sizes()
        with told(self.path, "listing"):
            return [entry["path"] for entry in self.store.list_with_delimiter()["objects"]]

    def below(self, folder: str) -> Iterable[str]:
        with told(self.path, "listing"):
            return [entry["path"] for some in self.store.list(f"{folder}/") for entry in some]

    def sizes(self) -> dict[str, int]:
        with told(self.path, "listing"):
            sizes = {entry["path"]: int(entry["size"]) for some in self.store.list() for entry in some}
        for key, size in sizes.items():
            check_key(key, self.path)
            if key.endswith("zarr.json"):
                check_size(size, key, self.path)
        return sizes

    def map(self, do: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
        pool, waiting = ThreadPoolExecutor(PARALLEL, "igc-dist store"), iter(items)
        try:
            while some := [*islice(waiting, 64 * PARALLEL)]:
                yield from pool.map(do, some)
        finally:
            pool.shutdown(cancel_futures=True)

    @contextmanager
    def explained(self) -> Iterator[None]:
        with told(self.path, "a request"):
            yield


def check_url(url: str) -> str:
    """The URL of a store, without a slash at its end.

    Raises `ConfigError` for one that is not of an object store, leads elsewhere, or holds a user, a password or a
    query.
    """
    plain = url.rstrip("/")
    if not _URL.fullmatch(_OF_AZURE.sub(r"\1", plain)) or any(part in (".", "..") for part in plain.split("/")):
        scheme, _, rest = url.partition("://")
        raise ConfigError(
            f"store.path={scheme}://{rest.rpartition('@')[2].partition('?')[0][:200]}: expected a folder, or "
            "s3://bucket/prefix, "
            f"gs://bucket/prefix or az://container/prefix in plain letters (schemes: {', '.join(SCHEMES)}). "
            "Credentials, the endpoint and "
            "the region come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, "
            "AWS_REGION)"
        )
    return plain


def connected(url: str) -> Any:
    """obstore's object store for a URL. Raises `ConfigError` if obstore is not installed or cannot use the URL."""
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise ConfigError(f"store.path={url} needs the package obstore: pip install 'igc-dist[s3]'") from error
    try:
        return from_url(
            url, retry_config=RETRY
        )  # no client_options: they would replace AWS_ALLOW_HTTP and similar variables
    except (BaseError, ValueError) as error:
        raise ConfigError(f"store.path={url} cannot be used: {_said(error)}") from error


@contextmanager
def told(url: str, doing: str) -> Iterator[None]:
    """Turn an error or timeout of a service into a `StoreError` that says what is safe and what to do."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError) as error:
        said = _said(error)
        if any(words in str(error) for words in NO_BUCKET):
            way = "make the bucket, or give another store.path"
        elif re.search(r"\b40[13]\b|PermissionDenied|Unauthenticated", f"{type(error).__name__} {said}"):
            way = (
                "give credentials that may read, write, list and delete there (AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY, AWS_REGION)"
            )
        else:
            way = "see that the service answers (AWS_ENDPOINT_URL; for http:// also AWS_ALLOW_HTTP=true)"
        raise StoreError(
            f"store {url}: {doing} failed ({said}). Shards that were committed are safe: {way}, and run again"
        ) from error


def _said(error: BaseException) -> str:
    """The message of obstore without its debug view; of an answer in XML only the status, the code and the message."""
    text = getattr(error, "strerror", None) or str(error).partition("\n\nDebug source")[0]
    inside = re.findall(r"status code: ([^:<]*)|<(?:Code|Message)>([^<]*)<", text)
    text = ", ".join(map("".join, inside)) if inside else text
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()[:400]
