"""Training recipes: one TOML file each, which says what differs from the defaults of its stages' settings."""

from trainer.recipes.loading import Recipe, load_recipe, recipe_names

__all__ = ["Recipe", "load_recipe", "recipe_names"]
