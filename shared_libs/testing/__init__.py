"""What tests of agents need: scenarios and their players, a virtual clock, and a server that fails as providers do."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared_libs.testing.background import BackgroundFaultServer
    from shared_libs.testing.clock import VirtualClock, real_time, run_virtual
    from shared_libs.testing.fault_script import load_fault_script
    from shared_libs.testing.fault_server import FaultServer, SeenRequest, UnexpectedRequest
    from shared_libs.testing.faults import (
        CleanCut,
        ConnectionRefused,
        ContentFilter,
        ContextTooLong,
        Cut,
        Drip,
        DuplicateChunks,
        EmptyAnswer,
        Fault,
        Flapping,
        Garbage,
        Healthy,
        HtmlPage,
        HugeChunk,
        MalformedBody,
        MalformedChunk,
        ModelMissing,
        NameNotResolved,
        NoEndMarker,
        PrefillRejected,
        RateLimited,
        ResetBeforeHeaders,
        ServerError,
        Silence,
        SlowFirstToken,
        Stall,
        TlsFailure,
        Unauthorized,
        UntrustedCertificate,
        WrongShape,
    )
    from shared_libs.testing.playing import Played, play
    from shared_libs.testing.ports import FaultPlan, PortFault
    from shared_libs.testing.scenario import Scenario, load_scenarios, scenarios_of
    from shared_libs.testing.schema import scenario_schema
    from shared_libs.testing.scripts import Outcome, Turn
    from shared_libs.testing.stage import Stage

_HOMES = {
    "BackgroundFaultServer": "background",
    "CleanCut": "faults",
    "ConnectionRefused": "faults",
    "ContentFilter": "faults",
    "ContextTooLong": "faults",
    "Cut": "faults",
    "Drip": "faults",
    "DuplicateChunks": "faults",
    "EmptyAnswer": "faults",
    "Fault": "faults",
    "FaultPlan": "ports",
    "FaultServer": "fault_server",
    "Flapping": "faults",
    "Garbage": "faults",
    "Healthy": "faults",
    "HtmlPage": "faults",
    "HugeChunk": "faults",
    "MalformedBody": "faults",
    "MalformedChunk": "faults",
    "ModelMissing": "faults",
    "NameNotResolved": "faults",
    "NoEndMarker": "faults",
    "Outcome": "scripts",
    "Played": "playing",
    "PortFault": "ports",
    "PrefillRejected": "faults",
    "RateLimited": "faults",
    "ResetBeforeHeaders": "faults",
    "Scenario": "scenario",
    "SeenRequest": "fault_server",
    "ServerError": "faults",
    "Silence": "faults",
    "SlowFirstToken": "faults",
    "Stage": "stage",
    "Stall": "faults",
    "TlsFailure": "faults",
    "Turn": "scripts",
    "Unauthorized": "faults",
    "UnexpectedRequest": "fault_server",
    "UntrustedCertificate": "faults",
    "VirtualClock": "clock",
    "WrongShape": "faults",
    "load_fault_script": "fault_script",
    "load_scenarios": "scenario",
    "play": "playing",
    "real_time": "clock",
    "run_virtual": "clock",
    "scenario_schema": "schema",
    "scenarios_of": "scenario",
}

__all__ = [
    "BackgroundFaultServer",
    "CleanCut",
    "ConnectionRefused",
    "ContentFilter",
    "ContextTooLong",
    "Cut",
    "Drip",
    "DuplicateChunks",
    "EmptyAnswer",
    "Fault",
    "FaultPlan",
    "FaultServer",
    "Flapping",
    "Garbage",
    "Healthy",
    "HtmlPage",
    "HugeChunk",
    "MalformedBody",
    "MalformedChunk",
    "ModelMissing",
    "NameNotResolved",
    "NoEndMarker",
    "Outcome",
    "Played",
    "PortFault",
    "PrefillRejected",
    "RateLimited",
    "ResetBeforeHeaders",
    "Scenario",
    "SeenRequest",
    "ServerError",
    "Silence",
    "SlowFirstToken",
    "Stage",
    "Stall",
    "TlsFailure",
    "Turn",
    "Unauthorized",
    "UnexpectedRequest",
    "UntrustedCertificate",
    "VirtualClock",
    "WrongShape",
    "load_fault_script",
    "load_scenarios",
    "play",
    "real_time",
    "run_virtual",
    "scenario_schema",
    "scenarios_of",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
