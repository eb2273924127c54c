"""LRP and friends from their definitions, with dense matrices in float64: slow, short and independent of the package.

A layer is the matrix A with ``y = A x + b``, read off by feeding unit vectors to Keras; which weight sits where in A is read
off by setting one weight to 1 at a time. Messages R_ij are then written out in full.
"""

from __future__ import annotations

import numpy as np

EPSILON = 1e-6


def dense_form(layer, input_shape):
    """Returns A (inputs, outputs), b (outputs,) and E (weights, inputs, outputs) with A = sum_k w_k E_k."""
    size = int(np.prod(input_shape))
    units = np.concatenate([np.zeros((1, size)), np.eye(size)]).reshape(-1, *input_shape).astype(np.float32)
    weights = layer.get_weights()

    def matrix():
        y = np.asarray(layer(units), np.float64).reshape(size + 1, -1)
        return y[1:] - y[0], y[0]

    a, b = matrix()
    kernel = weights[0]
    places = np.zeros((kernel.size, *a.shape))
    for k in range(kernel.size):
        one = np.zeros(kernel.size, np.float32)
        one[k] = 1
        layer.set_weights([one.reshape(kernel.shape), *[np.zeros_like(w) for w in weights[1:]]])
        places[k] = matrix()[0]
    layer.set_weights(weights)
    exact = np.einsum("k,kij->ij", kernel.reshape(-1).astype(np.float64), places)
    np.testing.assert_allclose(a, exact, atol=1e-5)
    return exact, b, places


def safe(a, b):
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b != 0)


def stabilise(z, epsilon):
    return z + np.where(z >= 0, 1.0, -1.0) * epsilon * np.mean(np.abs(z))


def pos(v):
    return np.maximum(v, 0)


def neg(v):
    return np.minimum(v, 0)


def messages(rule, x, a, b, relevance, connected, w=None):
    """Returns R_ij, (inputs, outputs), for one sample. `connected` tells which (i, j) have a weight."""
    contributions = x[:, None] * a
    z = contributions.sum(0) + b
    if rule in ("lrp.epsilon", "lrp.z"):
        return contributions * safe(relevance, stabilise(z, EPSILON if rule == "lrp.epsilon" else 0.0))
    if rule in ("lrp.z_plus", "lrp.alpha_1_beta_0"):
        return pos(contributions) * safe(relevance, pos(contributions).sum(0))
    if rule == "lrp.alpha_2_beta_1":
        up, down = pos(contributions), neg(contributions)
        return 2 * up * safe(relevance, up.sum(0)) - down * safe(relevance, down.sum(0))
    if rule == "lrp.gamma":
        g = 0.25
        up = contributions + g * pos(contributions)
        down = contributions + g * neg(contributions)
        part_up = up * safe(relevance, stabilise_like(up.sum(0) + b + g * pos(b)))
        part_down = down * safe(relevance, stabilise_like(down.sum(0) + b + g * neg(b)))
        return np.where(z > 0, part_up, np.where(z < 0, part_down, 0.0))
    if rule == "lrp.flat":
        return connected * safe(relevance, connected.sum(0).astype(float))
    if rule == "lrp.w_square":
        return a**2 * safe(relevance, (a**2).sum(0))
    if rule == "lrp.z_box":
        parts = contributions - (-3.0) * pos(a) - 3.0 * neg(a)
        return parts * safe(relevance, parts.sum(0))
    raise KeyError(rule)


def stabilise_like(z):
    return stabilise(z, EPSILON)


def two_layers(rule_first, rule_second, x, first, second, target):
    """Relevance of inputs, weights of both layers and outputs of the first, for one sample through linear-ReLU-linear."""
    (a1, b1, e1), (a2, b2, e2) = first, second
    z1 = x @ a1 + b1
    h = pos(z1)
    start = np.zeros(a2.shape[1])
    start[target] = 1.0
    r2 = messages(rule_second, h, a2, b2, start, e2.sum(0) != 0)
    r_h = r2.sum(1)
    r1 = messages(rule_first, x, a1, b1, r_h, e1.sum(0) != 0)
    weights = [np.einsum("kij,ij->k", e, r) for e, r in ((e1, r1), (e2, r2))]
    return r1.sum(1), weights, r_h


def deeplift_two_layers(reveal_cancel, x, reference, first, second, target):
    """Contributions of inputs, weights of both layers and outputs of the first, through linear-ReLU-linear."""
    (a1, b1, e1), (a2, _, e2) = first, second
    z, z_r = x @ a1 + b1, reference @ a1 + b1
    h, h_r = pos(z), pos(z_r)
    m_h = a2[:, target]
    terms = (x - reference)[:, None] * a1
    if reveal_cancel:
        up, down = pos(terms).sum(0), neg(terms).sum(0)
        rise = 0.5 * (pos(z_r + up) - pos(z_r) + pos(z_r + up + down) - pos(z_r + down))
        fall = 0.5 * (pos(z_r + down) - pos(z_r) + pos(z_r + up + down) - pos(z_r + up))
        r1 = (pos(terms) * safe(rise, up) + neg(terms) * safe(fall, down)) * m_h
    else:
        r1 = terms * safe(h - h_r, z - z_r) * m_h
    r2 = np.zeros_like(a2)
    r2[:, target] = (h - h_r) * m_h
    weights = [np.einsum("kij,ij->k", e, r) for e, r in ((e1, r1), (e2, r2))]
    return r1.sum(1), weights, r1.sum(0)
