"""Fifty secrets in a configuration and in the environment, and a data set and a model that say all they know."""

from __future__ import annotations

import logging
import os
import warnings
from typing import Any

import torch

from tests.ranks import Net, Rows

DATA = {
    "token": "{}", "hf_token": "{}", "accessKey": "{}", "secret_access_key": "{}", "apikey": "{}", "pwd": "{}",
    "password": "'{}'", "passphrase": "'{} two words'", "pat": "{}", "bearer": "{}", "sig": "{}", "signature": "{}",
    "clientSecret": "{}", "sas": "{}", "jwt": "{}", "cookie": "{}", "connection_string": "'Server=h;Pwd={}'",
    "dsn": "'postgres://me:{}@host/db'", "auth": "{{token:{},user:{{pass:{}}}}}", "credentials": "[{},{{a:{}}}]",
    "headers": "{{Authorization:'Bearer {}',X-Api-Key:{}}}", "site": "'https://me:a/b@{}@host.org/x'",
    "link": "'https://host.org/x?se=2026&sig={}'", "login": "{{user:me,password:{}}}", "options": "'--password {} -v'",
    "nested": "{{a:[{{b:{{privateKey:{}}}}}]}}", "curl": "'Authorization: Basic bWU6{}=='", "raw": "'token={}&x=1'",
    "github": "ghp_{}abcdefgh", "amazon": "{{key:{}}}", "authToken": "{}", "db": "{{connectionString:'Pwd={}'}}",
}  # fmt: skip
"""Settings of the data set: overrides of the command line, with a secret for each pair of braces."""

CALL = {
    "token": "{}", "pat": "{}", "accessKey": "{}", "dsn": "'mysql://{}@host/db'", "site": "'https://me:a/b@{}@x.org'",
    "auth": "{{basic:[me,{}]}}", "headers": "{{authorization:'Bearer {}'}}",
}  # fmt: skip
"""Settings of the forward pass, which stand in the spec."""

NAMES = ("HF_TOKEN", "WANDB_API_KEY", "MY_SECRET", "DB_PASSWORD", "SENTRY_DSN", "GH_PAT", "AWS_SECRET_ACCESS_KEY")
"""Variables of the environment."""


def secret(n: int) -> str:
    """The n-th secret, which nothing else looks like."""
    return f"s3cr3t{n:02d}Qz{n * 7919 % 9973:04d}"


def filled(prefix: str, settings: dict[str, str], first: int) -> list[str]:
    """Overrides with the secrets from number `first` on."""
    found = []
    for key, form in settings.items():
        count = form.replace("{{", "").replace("}}", "").count("{}")
        found.append(f"+{prefix}.{key}={form.format(*map(secret, range(first, first + count)))}")
        first += count
    return found


def environment(first: int) -> dict[str, str]:
    """Variables with secrets: one has letters that are written in many ways, another has no telling name."""
    found = {name: secret(first + n) for n, name in enumerate(NAMES)}
    found["DB_PASSWORD"] += "&\"'\\/@ é"
    return {**found, "PLAIN": secret(first + len(NAMES))}


class Loud(Rows):
    """Says every setting and the environment: in prints, warnings, logs, and in what it raises.

    It raises where `fail` says: when an item is read, or when its length is asked for.
    """

    def __init__(self, n: int = 24, fail: str = "", **settings: Any) -> None:
        super().__init__(n)
        self.words = [*said(settings), *(os.environ.get(name, "") for name in (*NAMES, "PLAIN"))]
        self.fail = fail
        print("login as", *self.words)
        warnings.warn(f"old login {self.words}", stacklevel=2)
        logging.getLogger("igc_dist.theirs").warning("%s logs in with %s", "me", self.words)

    def __len__(self) -> int:
        if self.fail == "length":
            raise self.wrong
        return super().__len__()

    def __getitem__(self, index: int) -> Any:
        if self.fail == "item" and index == 13:
            raise self.wrong
        return super().__getitem__(index)

    @property
    def wrong(self) -> ValueError:
        return ValueError("401 for " + ", ".join(self.words) + f" and {self.words}")


def said(node: Any) -> list[str]:
    """All texts in a node."""
    below = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return [node] if isinstance(node, str) else [text for item in below for text in said(item)]


class Asking(Net):
    """Takes anything beside its input."""

    def forward(self, x: torch.Tensor, **settings: Any) -> torch.Tensor:
        return super().forward(x)
