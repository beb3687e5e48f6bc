"""Public data sets: where their files come from, and how they become databases."""
