"""The published methods, the baselines and our own, side by side. Each is data; `xaic recipes NAME --json` prints one."""

from __future__ import annotations

from keras_xaic.recipes.recipe import Recipe

_SABIH = "Sabih, Hannig & Teich 2020 (arXiv 2008.09072)"
_TOOLKIT = "TensorFlow Model Optimization toolkit"

AUTO = Recipe(
    name="auto",
    source="keras-xaic",
    summary="Fewest losses under the budget: bits per layer, zeros per weight and removed filters, all by LRP relevance.",
    rule="lrp.epsilon",
    bits=(2, 3, 4, 5, 6, 8),
    filters=True,
    branches=True,
    align=2,  # dense kernels of 4 bits with an odd number of inputs have no fast code (see `has_fast_code`)
    steps=None,
    rounds=True,
)
LRP_MIXED = Recipe(
    name="lrp-mixed",
    source="Soroush, Raji & Ghavami 2023 (arXiv 2507.05286)",
    summary="Weights whose LRP score is not positive are pruned; layers get more bits the higher the mean score of the rest.",
    rule="lrp.epsilon",
    reduce="mean",
    score="signed_relevance",
    bits=(2, 3, 4, 5, 6, 8),
    sensitivity="mean_score",
    mean_bits=4.0,
)
DEEPLIFT_FILTERS = Recipe(
    name="deeplift-filters",
    source=_SABIH,
    summary="Filters with the least DeepLIFT importance go, in steps with training in between; then plain int8.",
    rule="deeplift.rescale",
    filters=True,
    removal=0.5,
    steps=3,
)
DEEPLIFT_WEIGHTS = Recipe(
    name="deeplift-weights",
    source=_SABIH,
    summary="Weights with the least DeepLIFT importance become zero, in each layer as many as matter least; then 8 bits.",
    rule="deeplift.rescale",
    score="relevance",
    sparsity=0.8,
    bits=(8,),
)
DEEPLIFT_CODEBOOK = Recipe(
    name="deeplift-codebook",
    source=_SABIH,
    summary="16 shared values in every layer, closest to the weights that matter most by DeepLIFT.",
    rule="deeplift.rescale",
    bits=(4,),
    grid="codebook",
    filters=True,
)
DEEPLIFT_MIXED = Recipe(
    name="deeplift-mixed",
    source=_SABIH,
    summary="Integer bit-widths per layer from DeepLIFT importance, chosen by an integer program.",
    rule="deeplift.rescale",
    bits=(2, 3, 4, 5, 6, 8),
    sensitivity="relevance",
    mean_bits=4.0,
)
ECQ = Recipe(
    name="ecq",
    source="Becking, Dreyer, Samek, Müller & Lapuschkin 2022 (arXiv 2109.04236), without the x",
    summary="2 to 5 bits, trained so that levels that many weights share are preferred: sparse, and small to download.",
    rule="lrp.epsilon",
    bits=(2, 3, 4, 5),
    grid="ecq",
    filters=True,
)
ECQX = ECQ.changed(
    name="ecqx",
    source="Becking, Dreyer, Samek, Müller & Lapuschkin 2022 (arXiv 2109.04236)",
    summary="As ecq, but LRP relevance decides which weights become zero.",
    grid="ecqx",
)
INT8 = Recipe(
    name="int8",
    source="TensorFlow Lite post-training quantization",
    summary="8-bit weights and activations, no training.",
    baseline="int8",
)
MAGNITUDE = Recipe(
    name="magnitude",
    source=f"{_TOOLKIT} (Zhu & Gupta 2017, arXiv 1710.01878)",
    summary="The same sparsity in every layer, smallest weights first; then plain int8.",
    baseline="magnitude",
)
CLUSTER = Recipe(
    name="cluster",
    source=_TOOLKIT,
    summary="16 shared values in every layer; then plain int8.",
    baseline="cluster",
)
AUTO_MAGNITUDE = AUTO.changed(
    name="auto-magnitude",
    summary="As auto, with the magnitude of weights in place of relevance: as a baseline it says what relevance adds.",
    rule="magnitude",
    score="magnitude",
    sensitivity="weight_error",
    control=True,
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        AUTO,
        LRP_MIXED,
        DEEPLIFT_FILTERS,
        DEEPLIFT_WEIGHTS,
        DEEPLIFT_CODEBOOK,
        DEEPLIFT_MIXED,
        ECQ,
        ECQX,
        INT8,
        MAGNITUDE,
        CLUSTER,
        AUTO_MAGNITUDE,
    )
}
