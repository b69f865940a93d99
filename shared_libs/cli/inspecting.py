"""`factory schema`: a command that looks and runs nothing."""

from __future__ import annotations

import argparse
import json

from shared_libs.cli.exits import ExitCode


def schema(arguments: argparse.Namespace) -> int:
    """Print the JSON Schema of a definition, or of a scenario."""
    if arguments.scenario:
        from shared_libs.testing import scenario_schema

        found = scenario_schema()
    else:
        from shared_libs.factory import agent_schema

        found = agent_schema()
    print(json.dumps(found, indent=2, ensure_ascii=False))
    return ExitCode.ANSWERED
