"""Texts and documents with secrets in them, which a fuzzer puts together: none of the secrets is left by the masker,
what is none stays, and it takes no long time."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from igc_dist.secrets import masked, masked_spec, masked_text, same
from tests.fuzz.choices import Choices

BY_VALUE = "hunter2&'\"\\é/hunter2"
"""The value of a variable of the environment."""

BY_KEY = "c0rrecth0rse"
"""What stands after a name that says secret, or in a form that does."""

NAMES = ("token", "password", "hf_token", "accessKey", "api-key", "auth", "a.b.secret", "DB_PWD", "dsn", "X-Api-Key")
FORMS = (
    "{name}={secret}", "{name}='{secret}'", '{name} = "{secret}"', "'{name}': '{secret}'", '"{name}": "{secret}"',
    "--{name} {secret}", "{name}={{a: [{secret}]}}", "+x.{name}=[1, {secret}]", "https://me:{secret}@host/a",
    "https://me:/@{secret}@host", "ftp://host/a?{name}={secret}", "Authorization: Bearer {secret}", "Bearer {secret}",
    "ghp_{secret}0123456789", "\\'{name}\\': \\'{secret}\\'", "{name}=b'{secret}'",
)  # fmt: skip
PIECES = (
    " ", "\n", "\t", "'", '"', "\\", "{", "}", "[", "]", "(", ")", ",", ":", "=", "?", "&", "@", "://", "--", "***",
    "a", "token", "token=", "token='", "password: ", "key=", "key: ", "auth={", "Authorization:", "Bearer ", "Basic ",
    "http://", "https://a@", "*** (1f3a)", "None", "12", "123456", "${oc.env:A}", "-----BEGIN PRIVATE KEY-----", "eyJ",
    "\x1b[0m", "é", "\ud800", "=" * 9, "a" * 99,
)  # fmt: skip
WORDS = ("max_tokens=5", "keypoints: [1, 2]", "monkey", "n_tokens: 512", "igc of 10 outputs", "key=None", "s3://b/p",
         "tokenizer='bert'", "author: me", "/a/token.json: gone", "seed=1", "rank 0, predict shard 3")  # fmt: skip
SLOW = 2.0
"""Seconds for a text of 20,000 characters, which takes 0.01, or some more where a fuzzer watches every branch."""


class Target:
    """What a fuzzer calls with bytes."""

    def __init__(self, folder: Path) -> None:
        self.story: list[str] = []
        os.environ["FUZZ_SECRET"] = BY_VALUE

    def __call__(self, data: bytes) -> None:
        choices = Choices(data)
        self.story = []
        choices.of((self.text, self.document, self.spec, self.plain, self.long))(choices)

    def noise(self, choices: Choices) -> str:
        """Text that ends no word: what begins after it is the beginning of one."""
        pieces = [choices.of(PIECES) for _ in range(choices.below(6))]
        return "".join([*pieces, choices.of((" ", "\n", ", "))])

    def planted(self, choices: Choices) -> str:
        """Secrets in forms that say what they are, and noise around them."""
        text = self.noise(choices)
        for _ in range(1 + choices.below(3)):
            form = choices.of(FORMS).format(name=choices.of(NAMES), secret=BY_KEY)
            text += form + self.noise(choices) + BY_VALUE * choices.below(2)
        self.story.append(repr(text))
        return text

    def text(self, choices: Choices) -> None:
        clean = masked_text(self.planted(choices))
        assert not leaks(clean), clean

    def node(self, choices: Choices, depth: int = 3) -> Any:
        """A document with secrets under keys and inside texts."""
        kind = choices.below(6 if depth else 4)
        if kind == 4:
            return [self.node(choices, depth - 1) for _ in range(choices.below(3))]
        if kind == 5:
            return {
                choices.of((*NAMES, "a", "b", "n_tokens", BY_VALUE)): self.node(choices, depth - 1) for _ in range(3)
            }
        return choices.of((self.planted(choices), {choices.of(NAMES): [BY_KEY]}, 1234, None))

    def document(self, choices: Choices) -> None:
        node = self.node(choices)
        clean = masked(node)
        said = json.dumps(clean, ensure_ascii=False)
        assert not leaks(said), said
        assert shape(clean) == shape(node)

    def spec(self, choices: Choices) -> None:
        """Two words under a key are two specs; a masked spec is itself."""
        name, word = choices.of(NAMES), f"layer{choices.below(100)}"
        one, two = ({"model": {name: word, "more": self.node(choices)}} for word in (word, f"{word}a"))
        assert same(masked_spec(one), masked_spec(one))
        assert word not in str(masked_spec(one)["model"][name])
        two["model"]["more"] = one["model"]["more"]
        seen = [masked_spec(spec)["model"][name] for spec in (one, two)]
        assert seen[0] != seen[1]
        assert not same(masked_spec(one), masked_spec(two))

    def plain(self, choices: Choices) -> None:
        text = choices.of((" ", "\n", ", ")).join(choices.of(WORDS) for _ in range(choices.below(9)))
        self.story.append(repr(text))
        assert masked_text(text) == text, masked_text(text)
        assert masked({"a": text}) == {"a": text}

    def long(self, choices: Choices) -> None:
        """A piece again and again, as text of a stranger may be."""
        piece = "".join(choices.of(PIECES) for _ in range(1 + choices.below(3)))
        self.story.append(repr(piece))
        began = time.process_time()
        masked_text(piece * (20_000 // len(piece)) + choices.of(PIECES))
        assert time.process_time() - began < SLOW


def leaks(text: str) -> bool:
    """Whether a secret is left, or the beginning or the end of one."""
    return any(part in text for part in (BY_KEY, BY_VALUE, BY_KEY[:6], BY_KEY[6:], "hunter2&", "/hunter2"))


def shape(node: Any) -> Any:
    """What masking leaves as it is: the nesting, but for keys that are one after it."""
    if isinstance(node, dict):
        return "dict"
    if isinstance(node, list):
        return [shape(item) for item in node]
    return "leaf"
