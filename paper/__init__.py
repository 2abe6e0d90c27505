"""The paper's tables and figures as recipes, one file each: a grid of runs, and how its page is drawn from records."""

from paper import (
    ablations,
    architectures,
    brute_force,
    forgetting,
    groups,
    peak,
    planted,
    selection,
    selective,
)
from paper.recipe import Panel, Recipe
from paper.streams import SCALES, SEEDS, Bench, Scale

RECIPES: dict[str, Recipe] = {
    module.RECIPE.name: module.RECIPE
    for module in (architectures, peak, brute_force, forgetting, selective, groups, selection, ablations, planted)
}
"""Every recipe by name, in the order of the paper."""

__all__ = ["RECIPES", "SCALES", "SEEDS", "Bench", "Panel", "Recipe", "Scale"]
