"""The mathematics: each equation of the papers once. Needs torch and nothing else of ours."""
