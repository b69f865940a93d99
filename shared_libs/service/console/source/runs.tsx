// The list of runs, live and past: a page at a time, filtered where the service does it.

import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import { ask, query } from "./api";
import { RunTable, Trouble } from "./parts";
import type { Agent, Page, Run } from "./types";
import { money, seconds } from "./words";

const STATUSES = ["running", "answered", "partial", "failed", "cancelled", "paused", "unfinished"];
const SINCE: [label: string, hours: number][] = [
  ["any time", 0],
  ["last hour", 1],
  ["last 24 hours", 24],
  ["last 7 days", 168],
];
const LOOK_MS = 2000;

interface Filters {
  status: string;
  agent: string;
  session: string;
  since: string;
  text: string;
  order: string;
}

const NONE: Filters = { status: "", agent: "", session: "", since: "", text: "", order: "" };

function fromHash(): Filters {
  const told = new URLSearchParams(location.hash.split("?")[1] ?? "");
  return Object.fromEntries(Object.keys(NONE).map((name) => [name, told.get(name) ?? ""])) as unknown as Filters;
}

function pathOf(filters: Filters, after: string | null): string {
  const hours = Number(filters.since);
  return `/v1/runs${query({
    status: filters.status,
    agent: filters.agent,
    session_id: filters.session,
    text: filters.text,
    order: filters.order,
    since: hours ? new Date(Date.now() - hours * 3600_000).toISOString() : "",
    after,
  })}`;
}

export function Runs() {
  const [filters, setFilters] = useState(fromHash);
  const [cursors, setCursors] = useState<(string | null)[]>([null]);
  const [page, setPage] = useState<Page>();
  const [trouble, setTrouble] = useState("");
  const [agents, setAgents] = useState<string[]>([]);
  const asked = useRef(0);
  const after = cursors.at(-1)!;

  const look = useCallback(async () => {
    const number = ++asked.current;
    try {
      const found = await ask<Page>(pathOf(filters, after));
      if (number === asked.current) {
        setPage(found);
        setTrouble("");
      }
    } catch (error) {
      if (number === asked.current) setTrouble((error as Error).message);
    }
  }, [filters, after]);

  useEffect(() => void look(), [look]);
  useEffect(() => {
    if (after !== null) return;
    const timer = setInterval(() => document.visibilityState === "visible" && look(), LOOK_MS);
    return () => clearInterval(timer);
  }, [look, after]);
  useEffect(() => {
    ask<{ agents: Agent[] }>("/v1/agents").then(({ agents }) => setAgents(agents.map((agent) => agent.name)), () => {});
  }, []);

  const change = (name: keyof Filters) => (event: Event) => {
    const value = (event.currentTarget as HTMLInputElement).value;
    const changed = { ...filters, [name]: value };
    history.replaceState(null, "", `#/runs${query({ ...changed })}`);
    setFilters(changed);
    setCursors([null]);
  };
  return (
    <>
      <h1>Runs</h1>
      <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
        <Choice label="Status" value={filters.status} onChange={change("status")} options={[["any", ""], ...STATUSES.map((name): [string, string] => [name, name])]} />
        <Choice label="Agent" value={filters.agent} onChange={change("agent")} options={[["any", ""], ...agents.map((name): [string, string] => [name, name])]} />
        <Choice label="Began" value={filters.since} onChange={change("since")} options={SINCE.map(([name, hours]) => [name, hours ? String(hours) : ""])} />
        <Choice label="Order" value={filters.order} onChange={change("order")} options={[["newest", ""], ["slowest", "slowest"]]} />
        <label>
          Words
          <input type="search" value={filters.text} onChange={change("text")} placeholder="of question or answer" />
        </label>
        <label>
          Session
          <input type="search" value={filters.session} onChange={change("session")} />
        </label>
      </form>
      {trouble && <Trouble text={trouble} />}
      {page && <Table runs={page.runs} />}
      {page && (
        <p class="pages">
          <button type="button" disabled={cursors.length === 1} onClick={() => setCursors(cursors.slice(0, -1))}>
            Back
          </button>
          <button type="button" disabled={!page.next} onClick={() => setCursors([...cursors, page.next])}>
            Next {filters.order === "slowest" ? "faster" : "older"} runs
          </button>
        </p>
      )}
    </>
  );
}

function Choice(props: { label: string; value: string; options: [label: string, value: string][]; onChange: (event: Event) => void }) {
  return (
    <label>
      {props.label}
      <select value={props.value} onChange={props.onChange}>
        {props.options.map(([label, value]) => (
          <option value={value}>{label}</option>
        ))}
      </select>
    </label>
  );
}

function Table({ runs }: { runs: Run[] }) {
  if (!runs.length) return <p class="empty">No run is like this.</p>;
  return (
    <RunTable
      lines={runs.map((run) => ({
        id: run.run_id,
        href: `#/runs/${encodeURIComponent(run.run_id)}`,
        began: run.started_at,
        status: run.status,
        why: run.stop_reason,
        question: run.question,
        rehearsal: run.rehearsal,
        agent: run.agent,
        took: run.elapsed_s,
        longest: run.longest && `${run.longest} ${seconds(run.longest_s)}`,
        cost: money(run.cost_usd),
      }))}
    />
  );
}
