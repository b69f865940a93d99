"""The `llm` section: which of the models are usable, and the chain they make."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from shared_libs.atomic.errors import MisuseError
from shared_libs.atomic.llms.base import BaseLLMWrapper
from shared_libs.atomic.llms.names import named_by
from shared_libs.atomic.resilience.policy import LimitStore, Resilience
from shared_libs.atomic.types import Price
from shared_libs.factory.draft import Draft
from shared_libs.factory.elsewhere import hint_for_provider
from shared_libs.factory.environment import variables
from shared_libs.factory.options import Options
from shared_libs.factory.prices import Prices
from shared_libs.factory.problems import Path, choices
from shared_libs.factory.registry import LIMITS, LLMS
from shared_libs.factory.spec import LinkAttributes, LinkCommon, LLMSpec, PolicySpec, PriceSpec
from shared_libs.factory.wording import note_errors

_GIVEN_BY_THE_CHAIN = frozenset({"resilience", "fallbacks"})
_NO_DATA = frozenset({"client"})
"""What only code can pass."""


@dataclass(frozen=True, slots=True)
class Link:
    """A checked model of the chain."""

    path: Path
    provider: str
    target: Callable[..., Any]
    options: Options
    settings: dict[str, Any]

    @property
    def is_at_home(self) -> bool:
        """Whether the address is the provider's own."""
        told = self.settings.get("base_url") or os.environ.get(getattr(self.target, "base_url_variable", ""))
        return not told or told.rstrip("/") == getattr(self.target, "own_base_url", "")

    @property
    def has_no_key(self) -> bool:
        """Whether a key is named but empty, and the address is the provider's own, which wants one."""
        return self.settings.get("api_key") == "" and self.is_at_home

    def price(self, prices: Prices) -> Price | None:
        """What the model costs, as the definition says; else, at its provider's own address, as the table says."""
        if isinstance(told := self.settings.get("price"), PriceSpec):
            return Price(**told.given())
        return prices.of(self.provider, self.settings.get("model", "")) if self.is_at_home else None

    @property
    def rehearses(self) -> bool:
        """Whether this is the stand-in, which is asked only when there is no model."""
        return bool(getattr(self.target, "rehearsal", False))


def link_options(target: Callable[..., Any]) -> Options:
    """Return what a definition may say of a model of this provider."""
    return Options.of(target, LinkCommon, without=_GIVEN_BY_THE_CHAIN | _NO_DATA, attributes=LinkAttributes)


def one_form(llm: Any) -> tuple[Any, dict[Path, Path]]:
    """Bring the short form (one model in the section itself) to the long one, and tell what has moved where."""
    if not isinstance(llm, Mapping) or "chain" in llm or "provider" not in llm:
        return llm, {}
    policy = {key: value for key, value in llm.items() if key in PolicySpec.model_fields}
    link = {key: value for key, value in llm.items() if key not in policy}
    return policy | {"chain": [link]}, {("llm", "chain", 0): ("llm",)}


def only(llm: Any, name: str) -> tuple[dict[str, Any], dict[Path, Path]]:
    """
    Reduce the section to one model, named as "provider/model"; its link, where the chain has it, else one of its own.

    Raises:
        MisuseError: nothing has such a name.

    """
    if not name.strip():
        raise MisuseError("the name of the model is empty; write provider/model, such as openai/gpt-5.4-mini")
    long, moved = one_form(llm)
    section = dict(long) if isinstance(long, Mapping) else {}
    chain = section.get("chain")
    names: list[str] = []
    for index, link in enumerate(chain if isinstance(chain, list) else []):
        if isinstance(link, Mapping):
            model = str(link.get("model", ""))
            names.append(f"{link.get('provider')}/{model}".rstrip("/"))
            if name in (names[-1], model):
                here: Path = ("llm", "chain", 0)
                return section | {"chain": [link]}, {here: moved.get(here, ("llm", "chain", index))}
    provider, _, model = name.partition("/")
    if provider not in LLMS:
        known = [*names, *(f"{one}/MODEL" for one in LLMS.names())]
        raise MisuseError(f"the model {name!r} is not known; {choices(name, known)}")
    return section | {"chain": [{"provider": provider, **({named_by(provider)[0]: model} if model else {})}]}, {}


def read_links(draft: Draft, llm: Any, moved: Mapping[Path, Path]) -> list[Link]:
    """Check every link of the chain against its provider; the problems are noted."""
    chain = llm.get("chain") if isinstance(llm, Mapping) else None
    links = []
    for index, settings in enumerate(chain if isinstance(chain, list) else []):
        path: Path = moved.get(("llm", "chain", index), ("llm", "chain", index))
        if isinstance(settings, Mapping) and isinstance(settings.get("provider"), str):
            link = _read_link(draft, dict(settings), path, PolicySpec.model_fields if path == ("llm",) else ())
            links += [link] if link else []
    return links


def build_model(
    draft: Draft, settings: Any, path: Path, prices: Prices, on_note: Callable[[str], None]
) -> BaseLLMWrapper | None:
    """Check and build one model that stands beside the chain; one whose key is empty is left out, with a note."""
    if not isinstance(settings, Mapping) or not isinstance(settings.get("provider"), str):
        return None
    link = _read_link(draft, dict(settings), path, ())
    if link is None:
        return None
    if link.has_no_key:
        on_note(f"{'.'.join(map(str, path))} is left out: {_how_to_set_the_key(draft, link)}")
        return None
    return _built(draft, link, prices, {})


def build_chain(
    draft: Draft, links: list[Link], spec: LLMSpec | None, prices: Prices, on_note: Callable[[str], None]
) -> BaseLLMWrapper | None:
    """
    Build the usable models: the first with the policy and the others as its fallbacks.

    A model without its key is left out while another remains; the rehearsal is used only when nothing else is.
    Returns None when nothing could be built; then a problem is noted, unless only the keys are missing.
    """
    keyed = [link for link in links if not link.has_no_key]
    usable = [link for link in keyed if not link.rehearses] or keyed[:1]
    for link in links if usable else []:
        if link.has_no_key:
            on_note(f"{link.provider} is left out: {_how_to_set_the_key(draft, link)}")
    # a stand-in that is not needed is made too, so that what is wrong with it shows before it is
    others = {link.path: _built(draft, link, prices, {}) for link in keyed if link not in usable[:1]}
    wiring: dict[str, Any] = {}
    if spec is not None and (policy := spec.policy()):
        limit = policy.get("rate_limit")
        if limit and limit.get("store") is not None:
            limit["store"] = _limit_store(draft, limit["store"])
        wiring["resilience"] = Resilience(**policy)
    if len(usable) > 1:
        wiring["fallbacks"] = [model for link in usable[1:] if (model := others[link.path])]
    return _built(draft, usable[0], prices, wiring) if usable else None


def unpriced(links: list[Link], prices: Prices) -> list[str]:
    """Name the models of a chain whose price is unknown."""
    return [
        f"{link.provider}/{link.settings.get('model', '')}".rstrip("/")
        for link in links
        if not link.rehearses and link.price(prices) is None
    ]


def note_missing_keys(draft: Draft, links: list[Link]) -> None:
    """Note that no model is usable because every key is empty."""
    for link in links:
        if link.has_no_key:
            draft.problems.add((*link.path, "api_key"), f"no model is usable: {_how_to_set_the_key(draft, link)}")


def _read_link(draft: Draft, settings: dict[str, Any], path: Path, also: Any) -> Link | None:
    provider = settings.pop("provider")
    place = (*path, "provider")
    if provider not in LLMS:
        known = choices(draft.at(place), LLMS.names(), hint_for_provider(provider))
        draft.problems.add(place, f"{draft.named(place)} is no provider; {known}")
        return None
    try:
        target = LLMS.load(provider)
        options = link_options(target)
    except MisuseError as error:
        draft.blame(place, error)
        return None
    try:
        return Link(path, provider, target, options, options.read(settings))
    except ValidationError as error:
        note_errors(draft, error, options.model, settings, base=path, also=["provider", *also])
    return None


def _built(draft: Draft, link: Link, prices: Prices, wiring: dict[str, Any]) -> BaseLLMWrapper | None:
    if draft.problems.inside(link.path):
        return None
    settings = dict(link.settings)
    apart = settings.keys() & LinkAttributes.model_fields.keys() - link.options.parameters
    attributes = {key: settings.pop(key) for key in apart}
    if "price" in link.options.parameters and (price := link.price(prices)) is not None:
        settings["price"] = price
    if "fallbacks" in wiring and "fallbacks" not in link.options.parameters:
        draft.problems.add(link.path, f"{link.provider} takes no fallbacks; put it last")
        return None
    taken = {key: value for key, value in wiring.items() if key in link.options.parameters}
    try:
        model = link.target(**settings, **taken)
    except Exception as error:  # noqa: BLE001 - a provider's constructor is foreign code: what it refuses has a place
        draft.blame(link.path, error, settings)
        return None
    if not isinstance(model, BaseLLMWrapper):
        draft.problems.add(link.path, f"provider {link.provider} gives no BaseLLMWrapper")
        return None
    for key, value in attributes.items():
        setattr(model, key, value)
    return draft.ports.model(model, draft.agent)


def _limit_store(draft: Draft, url: str) -> LimitStore | None:
    place: Path = ("llm", "rate_limit", "store")
    scheme = url.partition(":")[0]
    if scheme not in LIMITS:
        known = choices(scheme, [f"{name}:" for name in LIMITS.names()])
        draft.problems.add(place, f"no limit is kept at such an address; {known}")
        return None
    try:
        store = LIMITS.load(scheme)(url)
    except Exception as error:  # noqa: BLE001 - a store's constructor is foreign code: what it refuses has a place
        draft.blame(place, error)
        return None
    if not isinstance(store, LimitStore):
        draft.problems.add(place, f"the limit store {scheme} is a {type(store).__name__}, not a LimitStore")
        return None
    return store


def _how_to_set_the_key(draft: Draft, link: Link) -> str:
    names = variables(str(draft.at((*link.path, "api_key"))))
    return f"its key is empty; set {' or '.join(names)}" if names else "its key is empty; give one or remove `api_key`"
