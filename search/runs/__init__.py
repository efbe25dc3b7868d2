"""Runs over data sets: evaluated, resumed, reported, compared and swept."""
