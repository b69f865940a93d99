// Talks to the service: JSON, and events of runs that go on where a broken connection has left off.

import type { RunEvent } from "./types";

/** Tells the service that the page asks, and no form of another site: only then does its cookie count. */
const OURS = { "x-factory-console": "1" };

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 8000;

/** The service has refused something; `code` names why. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
  ) {
    super(detail);
  }
}

async function send(path: string, init: RequestInit): Promise<Response> {
  const headers = { ...OURS, ...(init.body ? { "content-type": "application/json" } : {}), ...init.headers };
  const answer = await fetch(path, { ...init, headers, credentials: "same-origin" });
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Refused(answer.status, told.code ?? "", told.detail ?? `the service answered ${answer.status}`);
  }
  return answer;
}

export async function ask<T>(path: string, init: RequestInit = {}): Promise<T> {
  const answer = await send(path, init);
  return answer.status === 204 ? (undefined as T) : answer.json();
}

/** Asks for a file. */
export async function text(path: string): Promise<string> {
  return (await send(path, {})).text();
}

export function post<T>(path: string, body: unknown, headers: Record<string, string> = {}): Promise<T> {
  return ask<T>(path, { method: "POST", body: JSON.stringify(body), headers });
}

/** Writes what is not empty as a query. */
export function query(fields: Record<string, string | null | undefined>): string {
  const told = Object.entries(fields).filter(([, value]) => value);
  return told.length ? `?${new URLSearchParams(told as [string, string][])}` : "";
}

const STRETCH_MS = 8;
/** So many events are yielded at once at most. */
export const AT_ONCE = 200;

/** Lets what else waits have its turn, keys and drawing first; a timer would be held up where nobody looks. */
export function breathe(): Promise<void> {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = () => (port1.close(), resolve());
    port2.postMessage(null);
  });
}

/** Yields the events of an answer, as many at once as have come; what comes at once is not taken in one go. */
async function* read(answer: Response): AsyncGenerator<RunEvent[]> {
  const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
  // a 10 MB event comes in many pieces, which are joined once
  let pieces: string[] = [];
  let since = performance.now();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      pieces.push(value);
      if (!value.includes("\n\n") && !(value.startsWith("\n") && pieces.at(-2)?.endsWith("\n"))) continue;
      const blocks = pieces.join("").split("\n\n");
      pieces = [blocks.pop()!];
      for (let from = 0; from < blocks.length; from += AT_ONCE) {
        if (performance.now() - since > STRETCH_MS) {
          await breathe();
          since = performance.now();
        }
        const events = eventsOf(blocks.slice(from, from + AT_ONCE));
        if (events.length) yield events;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

const DATA = /^data: (.*)$/m;

/** Reads blocks of a stream; their data is one JSON text then, which is read twice as fast as one by one. */
function eventsOf(blocks: string[]): RunEvent[] {
  const told: string[] = [];
  for (const block of blocks) {
    const data = DATA.exec(block)?.[1];
    if (!data) continue; // a comment
    if (block.startsWith("event: error\n")) {
      const { status, code, detail } = JSON.parse(data);
      throw new Refused(status, code, detail);
    }
    told.push(data);
  }
  return JSON.parse(`[${told.join(",")}]`);
}

/** Begins a run, and yields its events. */
export async function* begin(path: string, body: unknown, signal: AbortSignal): AsyncGenerator<RunEvent[]> {
  const headers = { accept: "text/event-stream", "x-on-disconnect": "continue" };
  yield* read(await send(path, { method: "POST", body: JSON.stringify(body), headers, signal }));
}

/**
 * Yields the events of a run until it ends or waits for a decision, whatever happens to the connection.
 *
 * `onAway` is told when the service is not reached, and when it is again.
 */
export async function* follow(
  run: string,
  signal: AbortSignal,
  onAway: (away: boolean) => void = () => {},
): AsyncGenerator<RunEvent[]> {
  let after = -1;
  let wait = FIRST_WAIT_MS;
  for (;;) {
    try {
      const path = `/v1/runs/${encodeURIComponent(run)}/events?after=${after}&brief=true`;
      const answer = await send(path, { headers: { accept: "text/event-stream" }, signal });
      onAway(false);
      for await (const events of read(answer)) {
        wait = FIRST_WAIT_MS;
        after = events.at(-1)!.seq;
        yield events;
      }
      return;
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && error.status < 500) throw error;
      onAway(true);
      await new Promise((resolve) => setTimeout(resolve, wait));
      if (signal.aborted) return;
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
    }
  }
}
