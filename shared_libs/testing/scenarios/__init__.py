"""Scenario files: agents played on virtual time, against scripted models, tools and faults at the ports."""
