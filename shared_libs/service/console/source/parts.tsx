// Small things that several places show.

import type { ComponentChildren } from "preact";
import { useMemo, useState } from "preact/hooks";
import type { Part } from "./types";
import { brief, clock, seconds } from "./words";

const FOLDED = 8000;
const MOST_SHOWN = 200_000;

export function Trouble({ text }: { text: string }) {
  return (
    <p role="alert" class="trouble">
      {text}
    </p>
  );
}

export function Badge({ status, why }: { status: string; why?: string | undefined }) {
  const more = why && status === "partial" ? ` · ${why.replaceAll("_", " ")}` : "";
  return <span class={`badge ${status}`}>{status + more}</span>;
}

/** A text as it is, never as HTML; of a long one its beginning, until somebody asks for more. */
export function Text({ text, code = false }: { text: string; code?: boolean }) {
  const [shown, setShown] = useState(FOLDED);
  const Tag = code ? "pre" : "div";
  return (
    <>
      <Tag class="text" tabIndex={code ? 0 : undefined}>{text.slice(0, shown)}</Tag>
      {text.length > shown && (
        <p class="more">
          {shown >= MOST_SHOWN ? (
            `${(text.length - shown).toLocaleString("en")} more characters are not shown. `
          ) : (
            <button type="button" onClick={() => setShown(Math.min(shown * 5, MOST_SHOWN))}>
              Show more of {text.length.toLocaleString("en")} characters
            </button>
          )}
          <CopyButton text={() => text}>Copy all</CopyButton>
        </p>
      )}
    </>
  );
}

const MOST_ROWS = 200;

/** `{"columns": [...], "rows": [[...]]}` as a table, as tools that ask a database return it; any other text as it is. */
export function Content({ text }: { text: string }) {
  const table = useMemo(() => tableOf(text), [text]);
  if (!table) return <Text text={text} code={text.length > 90 || text.includes("\n")} />;
  const { columns, rows, ...rest } = table;
  const below = [rows.length > MOST_ROWS && `${(rows.length - MOST_ROWS).toLocaleString("en")} more rows`, Object.keys(rest).length && JSON.stringify(rest)];
  return (
    <>
      <div class="wide" tabIndex={0} role="group" aria-label="Rows">
        <table class="plain">
          <Head columns={columns.map(cell)} />
          <tbody>
            {rows.slice(0, MOST_ROWS).map((row) => (
              <tr>
                {row.map((value) => (
                  <td class={typeof value === "number" ? "number" : undefined}>{cell(value)}</td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {below.filter(Boolean).map((words) => (
        <Text text={String(words)} />
      ))}
    </>
  );
}

const LONGEST_TABLE = 100_000;

function tableOf(text: string): { columns: unknown[]; rows: unknown[][]; [more: string]: unknown } | null {
  if (text[0] !== "{" || text.length > LONGEST_TABLE) return null;
  try {
    const { columns, rows } = JSON.parse(text);
    if (!Array.isArray(columns) || !columns.length || !Array.isArray(rows)) return null;
    return rows.every((row) => Array.isArray(row) && row.length === columns.length) ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}

function cell(value: unknown): string {
  return value == null ? "" : (typeof value === "string" ? value : JSON.stringify(value)).slice(0, 1000);
}

/** The head of a table; of a column in brackets the cells are numbers. */
export function Head({ columns }: { columns: (string | [number: string])[] }) {
  return (
    <thead>
      <tr>
        {columns.map((name) => (
          <th scope="col" class={typeof name === "string" ? undefined : "number"}>{name}</th>
        ))}
      </tr>
    </thead>
  );
}

/** A run in a list. */
export interface RunLine {
  id: string;
  href: string;
  began: string;
  status: string;
  why?: string | undefined;
  question: string;
  rehearsal: boolean;
  agent: string;
  took: number | null;
  longest: string;
  /** Where it is known of none, there is no column. */
  cost?: string;
}

export function RunTable({ lines }: { lines: RunLine[] }) {
  const costs = lines.some((line) => line.cost !== undefined);
  return (
    <table class="runs">
      <Head columns={["Began", "Status", "Question", "Agent", ["Took"], "Longest", ...(costs ? [["Cost"] as [string]] : [])]} />
      <tbody>
        {lines.map((line) => (
          <tr key={line.id}>
            <td class="when">{clock(line.began)}</td>
            <td>
              <Badge status={line.status} why={line.why} />
            </td>
            <td class="question">
              <a href={line.href}>{brief(line.question, 160) || line.id}</a>
              {line.rehearsal && <small> rehearsal</small>}
            </td>
            <td>{line.agent}</td>
            <td class="number">{seconds(line.took)}</td>
            <td class="longest">{line.longest}</td>
            {costs && <td class="number">{line.cost}</td>}
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function CopyButton({ text, children }: { text: () => string; children: ComponentChildren }) {
  const [done, setDone] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text());
      setDone("Copied");
    } catch {
      setDone("The browser does not let this page copy");
    }
    setTimeout(() => setDone(""), 2000);
  };
  return (
    <button type="button" onClick={copy}>
      <span aria-live="polite">{done || children}</span>
    </button>
  );
}

/** Gives a text as a file. */
export function save(name: string, text: string): void {
  const url = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

const NAMES: Record<string, string> = {
  away: "away",
  decision: "decision",
  rate_limit: "rate limit",
  backoff: "backoff",
  retry_after: "Retry-After",
  first_token: "first token",
  generation: "writing",
  failed_attempt: "failed attempt",
  tool: "tool",
  memory: "memory",
  blocked: "blocked loop",
  overhead: "overhead",
};

export function partName(part: Part): string {
  return `${NAMES[part.kind] ?? part.kind} ${part.name}`.trim();
}

const MOST_PARTS = 40;

/** What the time went on, as a bar whose whole width is `whole` seconds. */
export function PartsBar({ parts, whole, label, ghost = false }: { parts: Part[]; whole: number; label: string; ghost?: boolean }) {
  const shown = parts.slice(0, MOST_PARTS);
  const words = shown.slice(0, 6).map((part) => `${partName(part)} ${seconds(part.seconds)}`);
  return (
    <div class={ghost ? "parts ghost" : "parts"} role="img" aria-label={`${label}: ${words.join(", ")}`}>
      {shown.map((part) => (
        <i class={`part ${part.kind}`} style={{ width: `${(100 * part.seconds) / whole}%` }} title={`${partName(part)}: ${seconds(part.seconds)}`} />
      ))}
    </div>
  );
}
