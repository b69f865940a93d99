// What models were asked: read when somebody looks, shown as what each request adds to the one before.

import { createContext } from "preact";
import { useContext, useEffect, useState } from "preact/hooks";
import { CopyButton, Text } from "./parts";
import type { Asked, Message } from "./types";
import { counted, pretty } from "./words";

const MOST_SHOWN = 200;

/** Reads so many requests of a run behind a number, or as many as there are. */
export type ReadRequests = (run: string, after: number, limit: number) => Promise<Asked[]>;

const FEW = 20;
const MANY = 500;

/** The requests of runs, as far as they were looked at. */
export class Requests {
  private known = new Map<string, Map<number, Asked>>();
  private read: ReadRequests;

  constructor(read: ReadRequests) {
    this.read = read;
  }

  /** Finds requests by their numbers, in their order; those that are not kept are missing. */
  async find(run: string, wanted: number[]): Promise<Asked[]> {
    const known = this.of(run);
    let last = -1;
    for (const seq of wanted) {
      if (known.has(seq) || seq <= last) continue;
      const some = await this.add(run, seq - 1, FEW);
      last = some.length < FEW ? Infinity : some.at(-1)!.seq;
    }
    return wanted.flatMap((seq) => known.get(seq) ?? []);
  }

  /** Reads what a request goes on from, from the first on. */
  async complete(run: string, asked: Asked): Promise<void> {
    for (let after = -1; after < (asked.base ?? -1); ) {
      const some = await this.add(run, after, MANY);
      if (!some.length) return;
      after = some.at(-1)!.seq;
    }
  }

  /** A request with what it has from the one it goes on from, as far as that is known: its first messages may be missing. */
  whole(run: string, asked: Asked): Asked {
    const messages: Message[][] = [asked.messages];
    let { tools, options, kept, base } = asked;
    while (base !== null) {
      const its = this.of(run).get(base);
      if (!its) break;
      tools ??= its.tools;
      options ??= its.options;
      if (kept > its.kept) messages.unshift(its.messages.slice(0, kept - its.kept));
      kept = Math.min(kept, its.kept);
      base = its.base;
    }
    return { ...asked, base, kept, tools, options, messages: messages.flat() };
  }

  private of(run: string): Map<number, Asked> {
    let its = this.known.get(run);
    if (!its) this.known.set(run, (its = new Map()));
    return its;
  }

  private async add(run: string, after: number, limit: number): Promise<Asked[]> {
    const some = await this.read(run, after, limit);
    for (const asked of some) this.of(run).set(asked.seq, asked);
    return some;
  }
}

export const RequestsOf = createContext<Requests | null>(null);

/** What the tries of a lane were asked. */
export function Sent({ run, seqs }: { run: string; seqs: number[] }) {
  const requests = useContext(RequestsOf);
  const [found, setFound] = useState<Asked[]>();
  const [wrong, setWrong] = useState("");
  useEffect(() => {
    let here = true;
    requests?.find(run, seqs).then(
      (some) => here && setFound(some),
      (error) => here && setWrong(error.message),
    );
    return () => void (here = false);
  }, [requests, run, seqs.length]);
  if (!requests) return null;
  if (wrong) return <p class="hint">{wrong}</p>;
  if (!found) return <p class="hint">Looking for what it was asked…</p>;
  if (!found.length) return <p class="hint">What it was asked is not kept.</p>;
  return (
    <>
      {found.map((asked, index) => (
        <Request key={asked.seq} run={run} asked={asked} requests={requests} name={found.length > 1 ? `Asked at try ${index + 1}` : "Asked"} open={index === 0} />
      ))}
    </>
  );
}

function Request(props: { run: string; asked: Asked; requests: Requests; name: string; open: boolean }) {
  const { run, asked, requests, name } = props;
  const [all, setAll] = useState(false);
  const showAll = () => (all ? setAll(false) : void requests.complete(run, asked).then(() => setAll(true), () => {}));
  const whole = requests.whole(run, asked);
  const before = asked.kept;
  const messages = (all ? whole.messages : asked.messages).slice(0, MOST_SHOWN);
  const facts = [before ? `${counted(before + asked.messages.length, "message")}, ${asked.messages.length} of them new` : counted(asked.messages.length, "message")];
  if (whole.tools?.length) facts.push(`tools ${whole.tools.map((tool) => tool.name).join(", ")}`);
  for (const [key, value] of Object.entries(whole.options ?? {})) facts.push(`${key} ${typeof value === "string" ? value : JSON.stringify(value)}`);
  return (
    <details class="request" open={props.open}>
      <summary>
        <b>{name}</b> {facts.join(" · ").slice(0, 500)}
      </summary>
      {before > 0 && (
        <button type="button" aria-expanded={all} onClick={showAll}>
          {all ? "Only what is new" : `Show the ${before} before`}
        </button>
      )}
      <ol class="messages">
        {messages.map((message, index) => (
          <li key={index} class={message.role}>
            <b>{[message.role, message.name].filter(Boolean).join(" ")}</b>
            <Said message={message} />
          </li>
        ))}
      </ol>
      <CopyButton text={() => JSON.stringify(whole, null, 2)}>Copy the request</CopyButton>
    </details>
  );
}

function Said({ message }: { message: Message }) {
  const content = message.content ?? "";
  const parts = typeof content === "string" ? [content] : content.map((part) => part.text ?? `[image ${part.url}]`);
  for (const call of message.tool_calls ?? []) parts.push(`→ ${call.name} ${call.malformed ?? JSON.stringify(call.arguments ?? {})}`);
  const text = [...(message.thinking ?? []).map((block) => `(${block.text})`), ...parts].filter(Boolean).join("\n");
  return <Text text={message.role === "tool" ? pretty(text) : text} code={message.role === "tool" && text.length > 90} />;
}
