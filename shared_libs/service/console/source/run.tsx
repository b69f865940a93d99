// One run, under way or long over, followed in the service, and what can be done with it.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { ask, AT_ONCE, follow, post, query, Refused, text } from "./api";
import { Approvals } from "./approvals";
import { CopyButton, save, Trouble } from "./parts";
import { Requests } from "./requests";
import { Story } from "./story";
import type { Asked, Page, Run, RunEvent } from "./types";
import { RunView, statusOf } from "./view";

const AGAIN_S = 5;

/** While very much comes, it is drawn so often: drawing would take longer than reading. */
const DRAW_MS = 150;

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
    let timer = 0;
    const draw = () => {
      clearTimeout(timer);
      frame = timer = 0;
      setVersion((version) => version + 1);
      setNow(story.now);
    };
    const take = (events: RunEvent[]) => {
      for (const event of events) story.take(event);
      heard.current = { at: performance.now(), second: story.now };
      if (events.length < AT_ONCE || story.events < 2 * AT_ONCE) frame ||= requestAnimationFrame(draw);
      else timer ||= setTimeout(draw, DRAW_MS);
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
      clearTimeout(timer);
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
  const status = statusOf(story, row);
  const requests = useMemo(() => new Requests(requestsOf), [id]);
  const keep = (how: (path: string, file: string) => Promise<void>) => how(path, fileOf(id, story.agent)).catch((error) => setWrong(error.message));
  useEffect(() => {
    ask<Run>(`${path}?brief=true`).then(setRow, (error) => setWrong(error instanceof Refused ? error.message : String(error)));
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
  return (
    <RunView
      id={id}
      story={story}
      now={now}
      version={version}
      children={children}
      row={row}
      requests={requests}
      back="#/runs"
      away={away}
      wrong={wrong}
      actions={
        <>
          {status === "running" && (
            <button type="button" onClick={cancel}>
              Cancel
            </button>
          )}
          <button type="button" onClick={rerun}>
            Run again with {AGAIN_S} s
          </button>
          <CopyButton text={() => curl(story)}>Copy as curl</CopyButton>
          {story.ended && (
            <>
              <button type="button" onClick={() => keep(saveScenario)}>
                Save as scenario
              </button>
              <button type="button" onClick={() => keep(saveCassette)}>
                Save as cassette
              </button>
            </>
          )}
        </>
      }
      before={story.pending.length > 0 && <Approvals run={id} calls={story.pending} onDecided={() => setAgain(again + 1)} />}
    />
  );
}

async function requestsOf(run: string, after: number, limit: number): Promise<Asked[]> {
  const page = await ask<{ requests: Asked[] }>(`/v1/runs/${encodeURIComponent(run)}/requests${query({ after: String(after), limit: String(limit) })}`);
  return page.requests;
}

function fileOf(id: string, agent: string): string {
  return `${agent.replace(/[^\w.-]+/g, "_")}-${id.slice(0, 8).replace(/[^\w.-]+/g, "_")}`;
}

/** Saves a run as a scenario that plays it again. */
async function saveScenario(path: string, file: string): Promise<void> {
  save(`${file}.scenario.yaml`, await text(`${path}/scenario`));
}

/** Saves what its models were asked and answered, and the scenario that plays it again from that. */
async function saveCassette(path: string, file: string): Promise<void> {
  const cassette = await text(`${path}/cassette`);
  const scenario = await text(`${path}/scenario${query({ cassette: `${file}.cassette.yaml` })}`);
  save(`${file}.cassette.yaml`, cassette);
  save(`${file}.scenario.yaml`, scenario);
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
