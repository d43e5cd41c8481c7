"""What the backward pass of a network keeps, and what it computes again."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax

from diffcurr.networks.attention import ATTENDED, is_cudnn
from diffcurr.networks.products import PRODUCT

Function = TypeVar("Function", bound=Callable[..., Any])

REMAT_POLICIES: dict[str, Callable[..., Any] | None] = {
    "none": None,  # keep every activation
    # keep the results of the weight products, and of attention where a kernel computes it
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.save_only_these_names(PRODUCT, ATTENDED), is_cudnn
    ),
    "full": jax.checkpoint_policies.nothing_saveable,  # keep each block's input alone
}
"""`remat` of a network -> the policy of `jax.checkpoint`."""


def in_scan(apply_block: Function, remat: str) -> Function:
    """The body of a scan over blocks, of which the backward pass keeps what `REMAT_POLICIES[remat]` says."""
    if remat == "none":
        return apply_block
    # Inside a scan, XLA cannot merge the recomputation with the forward pass, so the barriers are not needed.
    return cast(Function, jax.checkpoint(apply_block, policy=REMAT_POLICIES[remat], prevent_cse=False))
