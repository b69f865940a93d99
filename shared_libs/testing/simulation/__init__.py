"""Scenarios drawn at random, the promises every run has to keep, and the smallest scenario that breaks one."""
