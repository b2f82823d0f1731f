"""The recipes that ship, one YAML file a preset; `kascade.recipe.load` finds them here."""
