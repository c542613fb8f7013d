"""The mathematics: each equation of the papers once. Imports torch and itself alone."""
