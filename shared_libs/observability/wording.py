"""How figures are said: the same everywhere a run is shown."""

from __future__ import annotations

from shared_libs.atomic.types import Usage


def seconds(value: float) -> str:
    """Say a span of time in few characters: `45 ms`, `1.20 s`, `2 m 05 s`, `3 h 07 m`."""
    if value < 0.0005:
        return "0 ms"
    if value < 0.9995:
        return f"{value * 1000:.0f} ms"
    if value < 99.95:
        return f"{value:.2f} s" if value < 9.995 else f"{value:.1f} s"
    whole = int(value + 0.5)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02} s"
    return f"{whole // 3600} h {whole // 60 % 60:02} m"


def counted(count: int, what: str) -> str:
    """Say how many there are of something."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def usage_words(usage: Usage) -> str:
    """Say how many tokens were used."""
    cached = f" ({usage.cached_input_tokens:,} cached)" if usage.cached_input_tokens else ""
    thought = f" ({usage.reasoning_tokens:,} thinking)" if usage.reasoning_tokens else ""
    return f"{usage.input_tokens:,} in{cached}, {usage.output_tokens:,} out{thought}"


def cost_words(cost_usd: float | None) -> str:
    """Say what was spent; a part of a cent of a cent is not nothing."""
    if cost_usd is None:
        return "unknown"
    return "<$0.0001" if 0 < cost_usd < 0.0001 else f"${cost_usd:.4f}"
