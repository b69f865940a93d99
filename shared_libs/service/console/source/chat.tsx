// A conversation with an agent: each question is a run, and every answer leads to it.

import { useEffect, useRef, useState } from "preact/hooks";
import { ask, begin } from "./api";
import { Approvals } from "./approvals";
import { Badge, Text, Trouble } from "./parts";
import { Story } from "./story";
import type { Agent } from "./types";
import { seconds } from "./words";

interface Turn {
  question: string;
  story: Story;
  trouble: string;
}

function newSession(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(8));
  return `console-${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

export function Chat({ name }: { name: string }) {
  const [agents, setAgents] = useState<Agent[]>();
  const [wrong, setWrong] = useState("");
  const [turns, setTurns] = useState<Turn[]>([]);
  const [question, setQuestion] = useState("");
  const [timeout, setTimeout] = useState("");
  const [session] = useState(newSession);
  const [, draw] = useState(0);
  const stop = useRef<AbortController | null>(null);
  const busy = turns.length > 0 && !turns.at(-1)!.story.result && !turns.at(-1)!.trouble;

  useEffect(() => {
    ask<{ agents: Agent[] }>("/v1/agents").then((told) => setAgents(told.agents), (error) => setWrong(error.message));
    return () => stop.current?.abort();
  }, []);
  const agent = agents?.find((agent) => agent.name === name) ?? agents?.[0];

  const send = async (event?: Event) => {
    event?.preventDefault();
    const asked = question.trim();
    if (!asked || busy || !agent) return;
    const turn: Turn = { question: asked, story: new Story(), trouble: "" };
    setTurns((turns) => [...turns, turn]);
    setQuestion("");
    const stopped = (stop.current = new AbortController());
    let frame = 0;
    try {
      const body = {
        question: asked,
        session_id: agent.memory ? session : undefined,
        timeout: Number(timeout) > 0 ? Number(timeout) : undefined,
      };
      const path = `/v1/agents/${encodeURIComponent(agent.name)}/runs`;
      for await (const events of begin(path, body, stopped.signal)) {
        for (const event of events) turn.story.take(event);
        frame ||= requestAnimationFrame(() => {
          frame = 0;
          draw((count) => count + 1);
        });
      }
      if (!turn.story.result) turn.trouble = "The connection broke; the run goes on and is found among the runs.";
    } catch (error) {
      if (!stopped.signal.aborted) turn.trouble = (error as Error).message;
    }
    draw((count) => count + 1);
  };
  const cancel = () => {
    const run = turns.at(-1)?.story.run;
    if (run) ask(`/v1/runs/${run}`, { method: "DELETE" }).catch((error) => setWrong(error.message));
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) void send(event);
  };
  if (wrong && !agents) return <Trouble text={wrong} />;
  if (!agents) return <p class="waiting">Looking…</p>;
  if (!agent) return <Trouble text="There is no agent that this key may run." />;
  return (
    <section class="chat">
      <div class="bar-head">
        <h1>Chat</h1>
        <label>
          Agent
          <select value={agent.name} onChange={(event) => (location.hash = `#/chat/${encodeURIComponent(event.currentTarget.value)}`)}>
            {agents.map((each) => (
              <option value={each.name}>{each.name}</option>
            ))}
          </select>
        </label>
      </div>
      <p class="byline">
        {[agent.description, agent.memory ? "" : "It remembers nothing between questions."].filter(Boolean).join(" ")}
      </p>
      <ol class="turns" aria-live="polite" aria-busy={busy}>
        {turns.map((turn) => (
          <Said turn={turn} />
        ))}
      </ol>
      {wrong && <Trouble text={wrong} />}
      <form class="ask" onSubmit={send}>
        <label>
          Question
          <textarea rows={2} value={question} onInput={(event) => setQuestion(event.currentTarget.value)} onKeyDown={onKeyDown} />
        </label>
        <label class="short">
          Seconds
          <input
            inputMode="decimal"
            value={timeout}
            placeholder={String(agent.timeout_s)}
            onInput={(event) => setTimeout(event.currentTarget.value)}
          />
        </label>
        {busy ? (
          <button type="button" onClick={cancel}>
            Stop
          </button>
        ) : (
          <button type="submit" class="main" disabled={!question.trim()}>
            Ask
          </button>
        )}
      </form>
    </section>
  );
}

function Said({ turn }: { turn: Turn }) {
  const { story, question, trouble } = turn;
  const result = story.result;
  const doing = story.lanes.filter((lane) => lane.kind === "tool").slice(-5);
  return (
    <li>
      <div class="asked">
        <Text text={question} />
      </div>
      <div class="said">
        {doing.map((lane) => (
          <p class="doing">
            <b>{lane.label}</b> {lane.note}
          </p>
        ))}
        <Text text={result ? (result.answer ?? "") : story.text} />
        {result?.error && <p class="bad">{result.error.slice(0, 2000)}</p>}
        {story.pending.length > 0 && <Approvals run={story.run} calls={story.pending} onDecided={() => (location.hash = `#/runs/${story.run}`)} />}
        {trouble && <Trouble text={trouble} />}
        <p class="byline">
          {result ? <Badge status={result.status} why={result.stop_reason} /> : !trouble && "Thinking…"} {result && seconds(result.elapsed_s)}{" "}
          {story.run && <a href={`#/runs/${story.run}`}>look into the run</a>}
        </p>
      </div>
    </li>
  );
}
