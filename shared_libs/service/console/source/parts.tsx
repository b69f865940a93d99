// Small things that several places show.

import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import type { Part } from "./types";
import { seconds } from "./words";

const FOLDED = 8000;
const MOST_SHOWN = 200_000;

export function Trouble({ text }: { text: string }) {
  return (
    <p role="alert" class="trouble">
      {text}
    </p>
  );
}

export function Badge({ status, why }: { status: string; why?: string }) {
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
