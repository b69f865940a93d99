// How the service stands: slots and queues, models with their breakers and limits, keys with what they have left.

import { useEffect, useState } from "preact/hooks";
import { ask } from "./api";
import { Badge, Head, Trouble } from "./parts";
import { counted, seconds } from "./words";

const LOOK_MS = 2000;

interface Target {
  slots: number;
  most: number;
  taken: number;
  waiting: number;
  queues: Record<string, number>;
  predicted_wait_s: number;
  refused: Record<string, number>;
}

interface Model {
  provider: string;
  model: string;
  place: string;
  rehearsal: boolean;
  used_by: string[];
  breaker: "closed" | "open" | "half_open";
  asked_again_in_s: number | null;
  failures: number;
  opens_at: number;
  p95_s: number | null;
  left_running: number;
  limit: Record<string, number | null> | null;
}

interface Status {
  draining: boolean;
  runs: number;
  targets: Record<string, Target>;
  models: Model[];
  problems: Record<string, string[]>;
}

interface Limit {
  whose: string;
  unit: string;
  window: string;
  limit: number;
  left: number | null;
}

interface Key {
  id: string;
  name: string;
  team?: string;
  scopes?: string[];
  expires_at?: string;
  invalid: string | null;
  limits: Limit[];
}

/** Asks again and again while the page is looked at. */
function useLook<T>(path: string, every = LOOK_MS): [T | undefined, string] {
  const [found, setFound] = useState<T>();
  const [wrong, setWrong] = useState("");
  useEffect(() => {
    let there = true;
    const look = () =>
      ask<T>(path).then(
        (told) => there && (setFound(told), setWrong("")),
        (error) => there && setWrong(error.message),
      );
    void look();
    const timer = setInterval(() => document.visibilityState === "visible" && look(), every);
    return () => {
      there = false;
      clearInterval(timer);
    };
  }, [path]);
  return [found, wrong];
}

export function ServicePage() {
  const [status, wrong] = useLook<Status>("/v1/status");
  const [keys, keysWrong] = useLook<{ keys: Key[]; more: boolean }>("/v1/keys", 10_000);
  return (
    <>
      <h1>Service</h1>
      {wrong && <Trouble text={wrong} />}
      {status && (
        <>
          <p class="byline">
            {status.draining && <Badge status="partial" why="draining" />} {counted(status.runs, "run")} under way
          </p>
          <Problems problems={status.problems} />
          <Admission targets={status.targets} />
          <Models models={status.models} />
        </>
      )}
      <section aria-labelledby="keys">
        <h2 id="keys">Keys</h2>
        {keysWrong ? <Trouble text={keysWrong} /> : keys && <Keys keys={keys.keys} more={keys.more} />}
      </section>
    </>
  );
}

export function Problems({ problems }: { problems: Record<string, string[]> }) {
  const lines = Object.values(problems).flat();
  if (!lines.length) return null;
  return (
    <section class="card wrong" aria-labelledby="problems">
      <h2 id="problems">Definitions that do not hold; what they gave before is served on</h2>
      <ul>
        {lines.slice(0, 100).map((line) => (
          <li>{line}</li>
        ))}
      </ul>
    </section>
  );
}

function Admission({ targets }: { targets: Record<string, Target> }) {
  const names = Object.keys(targets).sort();
  return (
    <section aria-labelledby="admission">
      <h2 id="admission">Slots and queues</h2>
      {!names.length && <p class="empty">Nothing was asked yet.</p>}
      <ul class="strips">
        {names.map((name) => (
          <Strip name={name} target={targets[name]!} />
        ))}
      </ul>
    </section>
  );
}

function Strip({ name, target }: { name: string; target: Target }) {
  const told = `${target.taken} of ${target.slots} slots taken, ${target.waiting} waiting`;
  const share = (count: number) => `${(100 * count) / target.most}%`;
  const refused = Object.entries(target.refused).map(([code, count]) => `${count} ${code.replaceAll("_", " ")}`);
  const queues = Object.entries(target.queues).map(([key, count]) => `${key || "anyone"} ${count}`);
  return (
    <li class="card">
      <h3>{name}</h3>
      <div class="slots" role="img" aria-label={told}>
        <i class="open" style={{ width: share(target.slots) }} />
        <i class="taken" style={{ width: share(target.taken) }} />
      </div>
      <p class="byline">
        {told} · who came now would wait {seconds(target.predicted_wait_s)}
        {target.slots < target.most && ` · cut from ${target.most} slots: the provider has refused`}
      </p>
      {queues.length > 0 && <p class="byline">Waiting by key: {queues.join(", ")}</p>}
      {refused.length > 0 && <p class="byline">Refused since the start: {refused.join(", ")}</p>}
    </li>
  );
}

const LAMPS = { closed: "closed", open: "open", half_open: "half open" };

function Models({ models }: { models: Model[] }) {
  return (
    <section aria-labelledby="models">
      <h2 id="models">Models</h2>
      <div class="wide" tabIndex={0} role="group" aria-label="Table of models">
        <table class="plain">
          <Head columns={["Model", "Breaker", ["95 % within"], "Our limit", "Used by"]} />
          <tbody>
            {models.map((model) => (
              <tr>
                <td>
                  {model.provider}/{model.model} <small>{model.rehearsal ? "rehearsal" : model.place}</small>
                </td>
                <td class="told">
                  <span class={`badge ${model.breaker}`}>{LAMPS[model.breaker]}</span>{" "}
                  <small>
                    {model.breaker === "closed"
                      ? model.failures > 0 && `${model.failures} of ${model.opens_at} failures`
                      : model.asked_again_in_s
                        ? `asked again in ${seconds(model.asked_again_in_s)}`
                        : "a probe is under way, or the next request is one"}
                    {model.left_running > 0 && ` · ${counted(model.left_running, "call")} left running`}
                  </small>
                </td>
                <td class="number">{seconds(model.p95_s) || "–"}</td>
                <td>{limits(model.limit)}</td>
                <td>{model.used_by.join(", ") || "–"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}

function limits(limit: Model["limit"]): string {
  const told = Object.entries(limit ?? {}).filter(([, value]) => value != null);
  return told.map(([name, value]) => `${value!.toLocaleString("en")} ${name.replace("_per_minute", "/min")}`).join(", ") || "none";
}

function Keys({ keys, more }: { keys: Key[]; more: boolean }) {
  if (!keys.length) return <p class="empty">No keys are kept; whoever reaches this address may ask anything.</p>;
  return (
    <div class="wide" tabIndex={0} role="group" aria-label="Table of keys">
      <table class="plain">
        <Head columns={["Key", "Team", "May", "Left of its limits", "Valid"]} />
        <tbody>
          {keys.map((key) => (
            <tr>
              <td>
                {key.name} <small>{key.id}</small>
              </td>
              <td>{key.team || "–"}</td>
              <td>{(key.scopes ?? ["*"]).join(", ")}</td>
              <td class="told">
                {key.limits.map((limit) => (
                  <Left limit={limit} />
                ))}
                {!key.limits.length && "no limits"}
              </td>
              <td>{key.invalid ?? (key.expires_at ? `until ${key.expires_at.slice(0, 10)}` : "yes")}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {more && <p class="byline">The newest are shown; <code>factory keys list</code> has all.</p>}
    </div>
  );
}

function Left({ limit }: { limit: Limit }) {
  const figure = (value: number) => (limit.unit === "usd" ? `$${value.toFixed(2)}` : value.toLocaleString("en"));
  const unit = limit.unit === "usd" ? "" : ` ${limit.unit}`;
  const whose = limit.whose === "team" ? " of the team" : "";
  const left = limit.left === null ? "unknown" : figure(limit.left);
  return (
    <div>
      {limit.left !== null && <meter min={0} max={limit.limit} low={limit.limit / 10} value={limit.left} aria-label={`left of ${figure(limit.limit)}${unit}`} />}{" "}
      {left} of {figure(limit.limit)}
      {unit} a {limit.window}
      {whose}
    </div>
  );
}
