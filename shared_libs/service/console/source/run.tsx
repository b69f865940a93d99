// One run, under way or long over: what it was, why it took so long, and its lanes.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ask, follow, post, query, Refused } from "./api";
import { Approvals } from "./approvals";
import { Lanes, Ribbon } from "./lanes";
import { Badge, CopyButton, PartsBar, save, Text, Trouble } from "./parts";
import { Scenario } from "./scenario";
import { Story } from "./story";
import type { Page, Run, RunEvent } from "./types";
import { clock, counted, money, seconds } from "./words";

const AGAIN_S = 5;

export interface Followed {
  story: Story;
  /** Changes whenever the story has. */
  version: number;
  now: number;
  away: boolean;
  trouble: string;
}

/** Follows a run from its beginning; what comes within one frame is drawn once. */
export function useRun(id: string, again: number): Followed {
  const story = useMemo(() => new Story(), [id, again]);
  const [version, setVersion] = useState(0);
  const [away, setAway] = useState(false);
  const [trouble, setTrouble] = useState("");
  const [now, setNow] = useState(0);
  const heard = useRef({ at: 0, second: 0 });

  useEffect(() => {
    const stop = new AbortController();
    let frame = 0;
    const draw = () => {
      frame = 0;
      setVersion((version) => version + 1);
      setNow(story.now);
    };
    const take = (events: RunEvent[]) => {
      for (const event of events) story.take(event);
      heard.current = { at: performance.now(), second: story.now };
      frame ||= requestAnimationFrame(draw);
    };
    (async () => {
      try {
        for await (const events of follow(id, stop.signal, setAway)) take(events);
        if (!stop.signal.aborted && !story.result) story.cutOff();
        frame ||= requestAnimationFrame(draw);
      } catch (error) {
        setTrouble((error as Error).message);
      }
    })();
    return () => {
      stop.abort();
      cancelAnimationFrame(frame);
    };
  }, [story, id]);

  useEffect(() => {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const timer = setInterval(
      () => {
        if (story.result || !story.startedAt || away) return;
        const since = (performance.now() - heard.current.at) / 1000;
        setNow(Math.min(heard.current.second + since, story.timeout || Infinity));
      },
      still ? 1000 : 200,
    );
    return () => clearInterval(timer);
  }, [story, away]);

  return { story, version, now: story.result ? story.now : Math.max(now, story.now), away, trouble };
}

const MOST_CHILDREN = 50;
const LOOK_AGAIN_MS = 3000;

/** Follows the runs of a run's sub-agents, by the call that each is for. */
function useSubAgents(id: string, story: Story): Map<string, Story> {
  const [found, setFound] = useState(new Map<string, Story>());
  const ended = story.result !== null;
  const calls = story.tools > 0;
  useEffect(() => {
    if (!calls) return;
    const stop = new AbortController();
    const known = new Set<string>();
    const listen = async (child: string) => {
      known.add(child);
      const its = new Story();
      for await (const events of follow(child, stop.signal)) {
        for (const event of events) its.take(event);
        setFound((found) => new Map(found).set(its.parentCall, its));
      }
    };
    const look = async () => {
      const { runs } = await ask<Page>(`/v1/runs${query({ parent: id, limit: String(MOST_CHILDREN) })}`);
      for (const run of runs) if (!known.has(run.run_id)) listen(run.run_id).catch(() => {});
    };
    look().catch(() => {});
    const timer = ended ? 0 : setInterval(() => look().catch(() => {}), LOOK_AGAIN_MS);
    return () => {
      stop.abort();
      clearInterval(timer);
    };
  }, [id, story, ended, calls]);
  return found;
}

export function RunPage({ id }: { id: string }) {
  const [again, setAgain] = useState(0);
  const { story, version, now, away, trouble } = useRun(id, again);
  const children = useSubAgents(id, story);
  const [row, setRow] = useState<Run>();
  const [wrong, setWrong] = useState("");
  const path = `/v1/runs/${encodeURIComponent(id)}`;
  const status = story.result?.status ?? row?.status ?? "running";
  useEffect(() => {
    ask<Run>(path).then(setRow, (error) => setWrong(error instanceof Refused ? error.message : String(error)));
  }, [path, story.result]);
  const cancel = () => ask<Run>(path, { method: "DELETE" }).then(setRow, (error) => setWrong(error.message));
  const rerun = async () => {
    try {
      const begun = await post<{ run_id: string }>(`/v1/agents/${encodeURIComponent(story.agent)}/runs?background=true`, {
        question: story.question,
        timeout: AGAIN_S,
      });
      location.hash = `#/runs/${begun.run_id}`;
    } catch (error) {
      setWrong((error as Error).message);
    }
  };
  if (trouble || (wrong && !story.events && !row)) {
    return (
      <>
        <h1>Run {id.slice(0, 80)}</h1>
        <Trouble text={trouble || wrong} />
      </>
    );
  }
  if (!story.events && !row) return <p class="waiting">Looking…</p>;
  const question = story.question || row?.question || "";
  return (
    <article class="run">
      <p class="back">
        <a href="#/runs">All runs</a>
      </p>
      <header>
        <Badge status={status} why={story.result?.stop_reason ?? row?.stop_reason} /> {away && <span class="badge failed" role="status">connection lost, trying again</span>}
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
        <div class="actions">
          {status === "running" && (
            <button type="button" onClick={cancel}>
              Cancel
            </button>
          )}
          <button type="button" onClick={rerun}>
            Run again with {AGAIN_S} s
          </button>
          <CopyButton text={() => curl(story)}>Copy as curl</CopyButton>
          {story.result && (
            <button type="button" onClick={() => saveScenario(id, story.agent).catch((error) => setWrong(error.message))}>
              Save as scenario
            </button>
          )}
        </div>
      </header>
      {wrong && <Trouble text={wrong} />}
      {story.pending.length > 0 && <Approvals run={id} calls={story.pending} onDecided={() => setAgain(again + 1)} />}
      <Outcome story={story} row={row} />
      {row && row.parts.length > 0 && <Why row={row} />}
      <Lanes story={story} now={now} version={version} children={children} />
      {story.notes.length > 0 && <Notes story={story} />}
      <footer>run {id}</footer>
    </article>
  );
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
  if (!cited.length) return null;
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
      {row?.status === "unfinished" && (
        <section class="card wrong">
          <h2>No end on record</h2>
          <p>Its process was gone before the run ended.</p>
        </section>
      )}
    </>
  );
}

function Why({ row }: { row: Run }) {
  const usual = row.usual;
  const took = row.elapsed_s ?? 0;
  const whole = Math.max(took, usual?.elapsed_s ?? 0) || 1;
  return (
    <section class="card why" aria-labelledby="why">
      <h2 id="why">What the time went on</h2>
      <PartsBar parts={row.parts} whole={whole} label="This run" />
      {usual && <PartsBar parts={usual.parts} whole={whole} label={`The median of ${counted(usual.runs, "run")}`} ghost />}
      <p>
        {row.why}
        {usual && ` ${row.agent} usually takes ${seconds(usual.elapsed_s)} (the median of ${counted(usual.runs, "answered run")}).`}
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

/** Reads the run once more, from its beginning, and gives it as a file. */
async function saveScenario(id: string, agent: string): Promise<void> {
  const scenario = new Scenario();
  for await (const events of follow(id, new AbortController().signal)) for (const event of events) scenario.take(event);
  const { file } = await ask<{ file: string }>(`/v1/agents/${encodeURIComponent(agent)}`).catch(() => ({ file: `${agent}.yaml` }));
  save(`${agent.replace(/[^\w.-]+/g, "_")}-${id.slice(0, 8)}.scenario.yaml`, scenario.text(file));
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function curl(story: Story): string {
  const body = JSON.stringify({ question: story.question, timeout: story.timeout || undefined });
  const lines = [
    `curl -N ${quoted(`${location.origin}/v1/agents/${encodeURIComponent(story.agent)}/runs`)}`,
    `-H "authorization: Bearer $FACTORY_KEY"`,
    `-H 'content-type: application/json'`,
    `-H 'accept: text/event-stream'`,
    `-d ${quoted(body)}`,
  ];
  return lines.join(" \\\n  ");
}
