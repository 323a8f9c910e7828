"""Names of others in a report are text: they make no tag, no attribute, no link and no template; and the page loads
nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from igc_dist.report import write_report
from tests.report.test_report import Page, store

HOSTILE = (
    "<script>alert(1)</script>",
    "</pre></title></style><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "{{ 7 * 191 }}",
    "{% include '/etc/passwd' %}{# #}",
    "javascript:alert(1)",
    "<a href='javascript:alert(1)'>x</a>",
    "<!-- --><iframe src=//evil.example>",
    "<svg/onload=alert(1)>",
    "&lt;script&gt;&#x3c;",
    "\u202e\u2028\x00\x1b[2J<base href=//evil.example>",
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A page without such names."""
    return Page(write_report(store(), tmp_path_factory.mktemp("plain"), 2).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "name", ["".join(HOSTILE[1:3]), *(pytest.param(name, marks=pytest.mark.slow) for name in HOSTILE)]
)
def test_hostile_names_are_text(name: str, plain: Page, tmp_path: Path) -> None:
    """As output, slice, method, kind of model, rank, reason, hash, advice, key and value of spec and provenance."""
    tree = store(names=[name, "b", "c", "d", "e"])
    tree.attrs |= {
        "method": name,
        "spec": {name: name, "model": {"_target_": name, "name": name}, "data": name, "target": [name, {name: [name]}]},
        "spec_hash": name,
        "status": name,
        "fallback": name,
        "budget": {"folds": name and 4, "of": 9, "reason": name, "advice": name},
        "provenance": {name: name, "ranks": [{name: name}, {"host": name}]},
        "skipped": [{"index": name, "reason": name}],
    }
    text = write_report(tree, tmp_path, 2).read_text(encoding="utf-8")
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    for tag, attributes in page.tags:
        assert not [
            key
            for key in attributes
            if key.startswith("on") or key in ("srcdoc", "formaction", "srcset", "action", "style")
        ], tag
        assert (attributes.get("href") or "#").startswith("#")
        assert (attributes.get("src") or "data:image/png;base64,").startswith("data:image/png;base64,")
    assert "1337" not in page.text
    assert "root:x:0" not in page.text
    head = text.split("</head>")[0]
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in head
    assert not [word for word in ("url(", "@import", "http-equiv=\"refresh") if word in head]  # fmt: skip
    assert "\x1b" not in text
    assert "\u202e" not in text
