"""What the features of an attribution are: their names, and how they are reduced before they are folded.

A reducer maps the attribution of one input, (n, J, *P), to (n, J, *Q) on the device, so that states, stores and
exchanges have the size of Q. The reducers in `reducers` are linear and preserve sums, ``sum_q R(a)_q = sum_p a_p``.
Covariances are linear in the attribution, so the reduced IGC is ``IGC_q = sum_p R_qp IGC_p`` and still adds up to the
correlation. A deviation is not linear, so it must be computed from the reduced attributions. The user may also give a
free function; a probe checks whether it preserves sums. XRAI, in `regions`, looks at the image. (The IGC package,
arXiv:2404.13910, calls a reducer a post-function.)

May import: data, secrets, tensors, arrays, records.
"""

from igc_dist.features.bases import Bands, Basis, Colour
from igc_dist.features.chains import Chain, basis_of
from igc_dist.features.functions import Function, Joint
from igc_dist.features.masks import DIM, Masks, masks_of, with_names
from igc_dist.features.names import Names, Shape, dims, feature_dims, names
from igc_dist.features.reducers import Channels, Patches, Reducer, Segments, Sums, Total
from igc_dist.features.reduction import Reduction, ensure
from igc_dist.features.regions import XRAI
from igc_dist.features.units import Heads, Tokens, Units

__all__ = [
    "DIM",
    "XRAI",
    "Bands",
    "Basis",
    "Chain",
    "Channels",
    "Colour",
    "Function",
    "Heads",
    "Joint",
    "Masks",
    "Names",
    "Patches",
    "Reducer",
    "Reduction",
    "Segments",
    "Shape",
    "Sums",
    "Tokens",
    "Total",
    "Units",
    "basis_of",
    "dims",
    "ensure",
    "feature_dims",
    "masks_of",
    "names",
    "with_names",
]
