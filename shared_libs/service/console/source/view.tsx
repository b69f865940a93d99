// A run as a page: what it was, why it took so long, and its lanes. Drawn alike by the console and by a file of its own.

import type { ComponentChildren } from "preact";
import { Lanes, Ribbon } from "./lanes";
import { Badge, PartsBar, partName, Text, Trouble } from "./parts";
import { type Requests, RequestsOf } from "./requests";
import type { Story } from "./story";
import type { Run, Spent } from "./types";
import { clock, counted, money, seconds } from "./words";

interface RunViewProps {
  id: string;
  story: Story;
  now: number;
  version: number;
  /** The runs of sub-agents, by the call that each is for. */
  children: Map<string, Story>;
  row?: Run | undefined;
  spent?: Spent | undefined;
  requests: Requests;
  back?: string;
  away?: boolean;
  wrong?: string;
  actions?: ComponentChildren;
  /** What stands before the answer, such as decisions that are waited for. */
  before?: ComponentChildren;
}

export function RunView({ id, story, now, version, children, row, spent, requests, back, away, wrong, actions, before }: RunViewProps) {
  const question = story.question || row?.question || "";
  return (
    <RequestsOf.Provider value={requests}>
      <article class="run">
        {back && (
          <p class="back">
            <a href={back}>All runs</a>
          </p>
        )}
        <header>
          <Badge status={statusOf(story, row)} why={story.result?.stop_reason ?? row?.stop_reason} /> {away && <span class="badge failed" role="status">connection lost, trying again</span>}
          <h1>{question.length > 600 ? `${question.slice(0, 600)}…` : question || id}</h1>
          <p class="byline">
            {[story.agent, story.model, story.startedAt && clock(story.startedAt), row?.source, story.session && `session ${story.session}`].filter(Boolean).join(" · ")}
          </p>
          {story.rehearsal && (
            <p class="rehearsal">
              <strong>Rehearsal.</strong> The decisions were recorded beforehand; no model was asked. Tools and data are real.
            </p>
          )}
          <Facts story={story} now={now} row={row} />
          <Ribbon story={story} now={now} />
          {actions && <div class="actions">{actions}</div>}
        </header>
        {wrong && <Trouble text={wrong} />}
        {before}
        <Outcome story={story} row={row} />
        {row && row.parts.length > 0 && <Why parts={row.parts} why={row.why} took={row.elapsed_s ?? 0} row={row} />}
        {spent && spent.parts.length > 0 && <Why parts={spent.parts} why={spent.why} took={story.now} />}
        <Lanes story={story} now={now} version={version} children={children} />
        {story.notes.length > 0 && <Notes story={story} />}
        <footer>run {id}</footer>
      </article>
    </RequestsOf.Provider>
  );
}

/** How a run stands: what it told itself, else what is on record of it. */
export function statusOf(story: Story, row: Run | undefined): string {
  return story.result?.status ?? row?.status ?? (story.cut ? "unfinished" : "running");
}

function Facts({ story, now, row }: { story: Story; now: number; row: Run | undefined }) {
  const usage = story.result?.usage ?? row?.usage;
  const facts: [string, string][] = [
    ["Time", seconds(now)],
    [story.rehearsal ? "Recorded decisions" : "Model requests", String(story.models)],
    ["Tool calls", String(story.tools)],
  ];
  if (usage?.total_tokens) facts.push(["Tokens", `${usage.input_tokens.toLocaleString("en")} in, ${usage.output_tokens.toLocaleString("en")} out`]);
  const cost = story.result?.cost_usd ?? row?.cost_usd;
  if (cost != null) facts.push(["Cost", money(cost)]);
  return (
    <dl class="facts">
      {facts.map(([name, value]) => (
        <div>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

/** The passages that an answer cites, in the order in which it does. */
function Cited({ story, answer }: { story: Story; answer: string }) {
  if (!story.passages.size) return null;
  const keys = new Set(Array.from(answer.slice(0, 100_000).matchAll(/\b[0-9a-f]{8}\b/g), (found) => found[0]));
  const cited = [...keys].flatMap((key) => story.passages.get(key) ?? []);
  // in brackets, and nothing but keys: `[0123abcd, 4567abcd]`
  const marked = Array.from(answer.slice(0, 100_000).matchAll(/[[【]((?:[0-9a-f]{8}[\s,;]*)+)[\]】]/gi), (found) => found[1]!);
  const unknown = new Set(marked.flatMap((some) => some.toLowerCase().match(/[0-9a-f]{8}/g) ?? []).filter((key) => !story.passages.has(key)));
  if (!cited.length && !unknown.size) return null;
  return (
    <section class="card" aria-labelledby="cited">
      <h2 id="cited">What it cites</h2>
      <ul class="cited">
        {cited.map((passage) => (
          <li>
            <p class="byline">
              [{passage.cite}] <b>{passage.title || passage.source}</b> · {passage.source}, characters {passage.start} to {passage.end}
            </p>
            <Text text={String(passage.text)} />
          </li>
        ))}
      </ul>
      {unknown.size > 0 && <p class="bad">Cited, but never seen: {[...unknown].map((key) => `[${key}]`).join(", ")}</p>}
    </section>
  );
}

function Outcome({ story, row }: { story: Story; row: Run | undefined }) {
  const result = story.result;
  const answer = result?.answer ?? row?.answer;
  const error = result?.error ?? row?.error;
  const left = result?.still_running ?? [];
  return (
    <>
      {!result && story.text && (
        <section class="card" aria-label="What it says">
          <h2>Being written</h2>
          <Text text={story.text} />
        </section>
      )}
      {answer && (
        <section class="card answer" aria-labelledby="answer">
          <h2 id="answer">{(result?.status ?? row?.status) === "answered" ? "Answer" : "Best answer"}</h2>
          <Text text={answer} />
        </section>
      )}
      {answer && <Cited story={story} answer={answer} />}
      {error && (
        <section class="card wrong" aria-labelledby="wrong">
          <h2 id="wrong">What went wrong</h2>
          <Text text={error} />
        </section>
      )}
      {left.length > 0 && (
        <section class="card wrong" aria-labelledby="left">
          <h2 id="left">Still running at the end</h2>
          <ul>
            {left.map((call) => (
              <li>
                {call.tool}, for {seconds(call.since_s)}
              </li>
            ))}
          </ul>
        </section>
      )}
      {statusOf(story, row) === "unfinished" && (
        <section class="card wrong">
          <h2>No end on record</h2>
          <p>Its process was gone before the run ended.</p>
        </section>
      )}
    </>
  );
}

const NAMED = 5; // parts whose names stand below the bar: a finger finds no tooltips

function Why({ parts, why, took, row }: Spent & { took: number; row?: Run }) {
  const usual = row?.usual;
  const whole = Math.max(took, usual?.elapsed_s ?? 0) || 1;
  return (
    <section class="card why" aria-labelledby="why">
      <h2 id="why">What the time went on</h2>
      <PartsBar parts={parts} whole={whole} label="This run" />
      {usual && <PartsBar parts={usual.parts} whole={whole} label={`The median of ${counted(usual.runs, "run")}`} ghost />}
      <ul class="legend">
        {parts.slice(0, NAMED).map((part) => (
          <li>
            <i class={`part ${part.kind}`} /> {partName(part)} {seconds(part.seconds)}
          </li>
        ))}
      </ul>
      <p>
        {why}
        {usual && ` ${row?.agent} usually takes ${seconds(usual.elapsed_s)} (the median of ${counted(usual.runs, "answered run")}).`}
      </p>
    </section>
  );
}

function Notes({ story }: { story: Story }) {
  const notes = story.notes.slice(0, 200);
  return (
    <section class="card notes" aria-labelledby="notes">
      <h2 id="notes">Also happened</h2>
      <ul>
        {notes.map((note) => (
          <li>
            <time>{seconds(note.at)}</time> {note.text.slice(0, 1000)}
          </li>
        ))}
      </ul>
      {story.notes.length > notes.length && <p>and {story.notes.length - notes.length} more</p>}
    </section>
  );
}

