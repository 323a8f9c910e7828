"""The one masker of secrets: every text that a run writes or prints goes through it.

Three things make a text a secret:

    its key     `password`, `hf_token`, `accessKey`, `auth`, ..., in a document, or before a value inside a text
    its value   that of an environment variable whose name says secret; what `${oc.env:NAME}` gave; what a
                configuration has under such a key
    its form    user and query of a URL, `Authorization` and `Bearer`, private keys, tokens with a known prefix

Ordinary words stay: a value of fewer than `SHORTEST` characters is never searched for, a short word or a number only
where it stands alone, and paths not at all.

May import: records.
"""

from igc_dist.secrets.known import MASK, given, holds_secret, learn
from igc_dist.secrets.masking import Masking, masked, masked_spec, same
from igc_dist.secrets.texts import masked_text

__all__ = ["MASK", "Masking", "given", "holds_secret", "learn", "masked", "masked_spec", "masked_text", "same"]
