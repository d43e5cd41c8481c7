"""The train step of a codec of tokens: reconstructions, a bottleneck, and a discriminator against both."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from diffcurr.batch import Batch
from diffcurr.codecs.vit_vqgan import ViTVQGAN, into_unit
from diffcurr.networks.discriminator import Discriminator
from diffcurr.training import dead_codes
from diffcurr.training.perceptual import Perceptual
from diffcurr.training.pixels import logit_laplace
from diffcurr.training.randomness import step_key
from diffcurr.training.state import TrainState
from diffcurr.training.updating import Updating, averaged, updated


class Pair(nnx.Module):
    """What is trained: a generator of reconstructions and, where there is one, a discriminator."""

    def __init__(self, generator: ViTVQGAN, discriminator: Discriminator | None):
        self.generator, self.discriminator = generator, discriminator


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TokenizerStep(Updating):
    """Everything about the step that does not change during a run. Its graph is that of a `Pair`.

    Attributes:
      l2: weight of the mean squared error of a pixel.
      logit_laplace: weight of the mean -log density of a pixel, in nats.
      commitment: weight of the distance of vectors to their codes, which moves the vectors; what moves codes has 1.
      perceptual: the loss of features; None for none.
      adversarial: weight of the discriminator's opinion.
      adversarial_start: step from which on it counts, and is trained.
      restart_after: steps without use after which a code is brought back to where vectors are; 0 for never.
      remat: compute what the perceptual loss and the discriminator see again in the backward pass.
    """

    l2: float
    logit_laplace: float
    commitment: float
    perceptual: Perceptual | None
    adversarial: float
    adversarial_start: int
    restart_after: int
    remat: bool = False


class Losses(NamedTuple):
    """The losses of a batch, each a mean over its examples, not weighted."""

    l2: Float[Array, ""]
    logit_laplace: Float[Array, ""]
    perceptual: Float[Array, ""]
    quantisation: Float[Array, ""]
    adversarial: Float[Array, ""]
    discriminator: Float[Array, ""]


class Report(NamedTuple):
    """What a microbatch reports: the mean loss; sums over its examples; of the first, vectors to put codes at."""

    loss: Float[Array, ""]
    losses: Losses
    counts: Float[Array, " code"]
    candidates: Float[Array, "candidate dim"]


class Metrics(NamedTuple):
    """What one step reports.

    Attributes:
      loss: the generator's, all of its losses by their weights.
      grad_norm: global norm of the gradient of both networks, before clipping.
      learning_rate: learning rate of this step.
      l2: mean squared error of a pixel in [-1, 1].
      logit_laplace: mean -log density of a pixel, in nats; 0 where it has no weight, as the following.
      perceptual: mean distance of features.
      quantisation: mean squared distance of a number of a vector from its code's.
      adversarial: the generator's loss by the discriminator, softplus(-score of a reconstruction).
      discriminator: the discriminator's loss, softplus(score of a reconstruction) + softplus(-score of a picture).
      codebook_use: share of the codes that the batch uses.
      codebook_perplexity: perplexity of their frequencies in it.
    """

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]
    learning_rate: Float[Array, ""]
    l2: Float[Array, ""]
    logit_laplace: Float[Array, ""]
    perceptual: Float[Array, ""]
    quantisation: Float[Array, ""]
    adversarial: Float[Array, ""]
    discriminator: Float[Array, ""]
    codebook_use: Float[Array, ""]
    codebook_perplexity: Float[Array, ""]


def losses(
    params: Any, images: Float[Array, "batch height width channel"], config: TokenizerStep, step: Any, perceptual: Any
) -> tuple[Float[Array, ""], tuple[Float[Array, ""], Losses, Any, Any]]:
    """(what is differentiated, (the generator's loss, all losses, what the bottleneck got, what it made of that)).

    The gradient by the generator's parameters is that of its loss alone, the gradient by the discriminator's that of
    the discriminator's loss alone: each sees the other as it is, and both move in one step from the same
    reconstructions.

    Args:
      params: parameters of a `Pair`.
      step: number of steps taken.
      perceptual: weights of the network of the perceptual loss.
    """
    pair = nnx.merge(config.graph, params)
    zero = jnp.zeros(())
    vectors = pair.generator.encode(images)
    found = pair.generator.quantise(vectors)
    maps = pair.generator.maps(found.codes)
    pictures = pair.generator.picture(maps)

    kept = jax.checkpoint if config.remat else lambda function: function
    density = features = fooled = caught = zero
    if config.logit_laplace:
        density = jnp.mean(logit_laplace(into_unit(images), *jnp.split(maps, 2, axis=-1)))
    if config.perceptual is not None:
        features = jnp.mean(kept(config.perceptual.distance)(perceptual, pictures, images))
    if config.adversarial:

        def scores(params: Any, images: Array) -> Array:
            return nnx.merge(config.graph, params).discriminator(images)

        fooled = jnp.mean(jax.nn.softplus(-kept(scores)(jax.lax.stop_gradient(params), pictures)))
        made, real = (kept(scores)(params, x) for x in (jax.lax.stop_gradient(pictures), images))
        caught = jnp.mean(jax.nn.softplus(made) + jax.nn.softplus(-real))
    counts_now = (step >= config.adversarial_start) * 1.0
    of_all = Losses(jnp.mean(jnp.square(pictures - images)), density, features, found.to_code, fooled, caught)
    loss = config.l2 * of_all.l2 + config.logit_laplace * density + config.commitment * found.to_code + found.to_vector
    loss = loss + (config.perceptual.weight if config.perceptual else 0.0) * features
    loss = loss + config.adversarial * counts_now * fooled
    return loss + counts_now * caught, (loss, of_all, vectors, found)


def tokenizer_step(
    state: TrainState, batch: Batch, carry: tuple[()], config: TokenizerStep, perceptual: Any = None
) -> tuple[TrainState, tuple[()], Metrics]:
    """One optimizer step of both networks; see `training.step.train_step`.

    Args:
      state: its `curriculum` is, for each code, how many steps ago it was used last.
      perceptual: weights of the network of the perceptual loss.
    """

    def gradient(index: int | Array, part: Batch) -> tuple[Any, Report]:
        differentiated = jax.value_and_grad(losses, has_aux=True)
        (_, (loss, parts, vectors, found)), grads = differentiated(state.params, part.x, config, state.step, perceptual)
        counts = jnp.zeros(len(state.curriculum)).at[found.tokens.reshape(-1)].add(1.0)
        candidates = jnp.zeros((0, vectors.shape[-1]))
        if config.restart_after:
            flat, codes = (jax.lax.stop_gradient(x).reshape(-1, x.shape[-1]) for x in (vectors, found.codes))
            key = step_key(config.seed, "codebook", state.step)
            candidates = (index == 0) * dead_codes.candidates(key, flat, codes, len(counts))
        sums = jax.tree.map(lambda x: x * len(part.x), parts)
        return grads, Report(loss, sums, counts, candidates)

    grads, seen = averaged(gradient, batch, config.microbatches)
    unused, dead = dead_codes.aged(state.curriculum, seen.counts, config.restart_after or jnp.iinfo(jnp.int32).max)
    moved = updated(state, grads, unused, config)
    if config.restart_after:

        def restarted(params: Any) -> Any:
            codebook = jnp.where(dead[:, None], seen.candidates, params["generator"]["codebook"])
            return params | {"generator": params["generator"] | {"codebook": codebook}}

        moved = moved._replace(
            params=restarted(moved.params),
            ema=restarted(moved.ema),
            averages=tuple(map(restarted, moved.averages)),
        )
    use, perplexity = dead_codes.spread(seen.counts)
    metrics = Metrics(
        loss=seen.loss,
        grad_norm=optax.tree.norm(grads),
        learning_rate=jnp.asarray(config.learning_rate(state.step), jnp.float32),
        **{name: value / len(batch.x) for name, value in seen.losses._asdict().items()},
        codebook_use=use,
        codebook_perplexity=perplexity,
    )
    return moved, carry, metrics
