"Difficulty-aware rejection sampling and tuning, exported from the notebooks in nbs/."
