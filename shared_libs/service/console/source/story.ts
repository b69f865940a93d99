// A run as lanes: what its events say, ready to be drawn. Pure, and as quick for the ten-thousandth event as for the first.

import type { Call, Result, RunEvent } from "./types";
import { brief, counted, inputBrief, pretty, seconds } from "./words";

export type Kind = "step" | "model" | "wait" | "tool" | "retrieval" | "memory";
export type Outcome = "ok" | "open" | "error" | "cancelled" | "left running" | "cut off";

/** Something that took time, from a second of the run to another; `to` is null while it goes on. */
export interface Bar {
  kind: Kind;
  from: number;
  to: number | null;
  /** When the first token came. */
  split: number | null;
  outcome: Outcome;
  label: string;
}

/** A headed text of a lane. */
export type Detail = [head: string, text: string];

/** A row of the picture: a step, and below it the models, tools and memory calls of the step. */
export interface Lane {
  kind: Kind;
  label: string;
  note: string;
  bars: Bar[];
  details: Detail[];
  /** The call that a sub-agent's run is for. */
  call: string;
  /** The run it belongs to, and the numbers of the requests to its model. */
  run: string;
  asked: number[];
}

/** A passage that a tool has shown, by the key with which an answer cites it. */
export interface Passage {
  cite: string;
  title: string;
  source: string;
  start: number;
  end: number;
  text: string;
}

export interface Note {
  at: number;
  text: string;
}

const MOST_PASSAGES = 500;

export class Story {
  run = "";
  /** The call of another run that this one is for. */
  parentCall = "";
  parent = "";
  agent = "";
  model = "";
  question = "";
  session: string | null = null;
  startedAt = "";
  timeout = 0;
  rehearsal = false;
  /** Seconds of the run that have been told, and the latest end of a bar: a wait is told before it is over. */
  now = 0;
  last = 0;
  /** When a limit ended the exploration, and when the exchange was being stored. */
  lastWord: number | null = null;
  stored: [number, number] | null = null;
  result: Result | null = null;
  lanes: Lane[] = [];
  notes: Note[] = [];
  /** Passages that tools have shown, by their keys. */
  passages = new Map<string, Passage>();
  events = 0;
  /** Whether its process was gone before its end. */
  cut = false;
  models = 0;
  tools = 0;
  /** The text of the step under way. */
  text = "";
  private step: Lane | null = null;
  private open = new Map<string, { lane: Lane; bar: Bar }>();
  private asked = new Map<string, Lane>();
  private waits: Bar[] = [];

  get ended(): boolean {
    return this.result !== null && this.result.status !== "paused";
  }

  /** Calls that wait for a decision. */
  get pending(): Call[] {
    return this.result?.status === "paused" ? this.result.pending : [];
  }

  take(event: RunEvent): void {
    this.events += 1;
    this.now = Math.max(this.now, event.at_s);
    const act = TAKES[event.type];
    if (act) act(this, event);
  }

  /** Ends what no event has ended: the run's process is gone. */
  cutOff(): void {
    this.cut = true;
    this.close("cut off");
  }

  begin(event: RunEvent): void {
    this.run = event.run_id;
    this.parentCall = event.parent_call_id ?? "";
    this.parent = event.parent_run_id ?? "";
    for (const name of ["agent", "model", "question"] as const) this[name] = event[name];
    this.session = event.session_id ?? null;
    this.startedAt = event.started_at;
    this.rehearsal = event.rehearsal ?? false;
    this.timeout = event.timeout_s + (event.resumed ? event.at_s : 0);
    this.result = null;
  }

  beginStep(event: RunEvent): void {
    this.endStep(event.at_s);
    this.text = "";
    this.asked.clear();
    this.step = lane("step", `Step ${event.step}${event.final ? " · last word" : ""}`);
    this.step.bars.push(bar("step", event.at_s, "open"));
    this.lanes.push(this.step);
  }

  endStep(at: number): void {
    const its = this.step?.bars[0];
    if (its && its.to === null) {
      its.to = at;
      its.outcome = "ok";
    }
    this.step = null;
  }

  /** Models asked at once are lanes of their own; a model asked again goes on with its lane, unless that is busy. */
  private laneOf(provider: string, model: string, busy = false): Lane {
    const key = `${provider}/${model}`;
    let its = this.asked.get(key);
    if (!its || busy) {
      its = lane("model", its ? `${model} · beside it` : model);
      this.asked.set(key, its);
      this.lanes.push(its);
    }
    return its;
  }

  beginAttempt({ provider, model, number, at_s, seq }: RunEvent): void {
    this.models += 1;
    this.endWaits(`${provider}/${model}`, at_s);
    const before = this.asked.get(`${provider}/${model}`);
    const its = this.laneOf(provider, model, before?.bars.at(-1)?.to === null);
    const began = bar("model", at_s, "open", number > 1 ? `try ${number}` : "");
    its.bars.push(began);
    its.run = this.run;
    its.asked.push(seq);
    this.open.set(`model ${provider} ${model} ${number}`, { lane: its, bar: began });
  }

  endAttempt({ attempt, at_s }: RunEvent): void {
    const key = `model ${attempt.provider} ${attempt.model} ${attempt.number}`;
    const found = this.open.get(key) ?? { lane: this.laneOf(attempt.provider, attempt.model), bar: bar("model", at_s, "open") };
    if (!this.open.delete(key)) found.lane.bars.push(found.bar);
    const its = found.bar;
    its.from = attempt.started_s;
    its.to = attempt.ended_s;
    its.split = attempt.first_token_s ?? null;
    its.outcome = attempt.outcome === "ok" || attempt.outcome === "cancelled" ? attempt.outcome : "error";
    const told: string[] = [seconds(attempt.ended_s - attempt.started_s)];
    if (attempt.status_code != null) told.push(`HTTP ${attempt.status_code}`);
    if (attempt.first_token_s != null) told.push(`first token after ${seconds(attempt.first_token_s - attempt.started_s)}`);
    if (attempt.usage) told.push(`${attempt.usage.input_tokens} tokens in, ${attempt.usage.output_tokens} out`);
    if (attempt.why) told.push(attempt.why);
    const outcome = attempt.outcome.replaceAll("_", " ");
    found.lane.details.push([`Try ${attempt.number} at ${attempt.provider}`, `${outcome} · ${told.join(" · ")}`]);
    if (its.outcome === "error") found.lane.note = outcome;
    else found.lane.note = its.outcome === "ok" ? "" : outcome;
  }

  wait({ provider, model }: RunEvent, from: number, to: number, label: string, why: string): Bar {
    const its = bar("wait", from, "ok", label);
    its.to = to;
    const where = this.laneOf(provider, model);
    where.bars.push(its);
    this.last = Math.max(this.last, to);
    where.details.push([label, [seconds(to - from), why].filter(Boolean).join(" · ")]);
    return its;
  }

  scheduleRetry(event: RunEvent): void {
    const { at_s, wait_s, why } = event;
    this.waits.push(this.wait(event, at_s, at_s + wait_s, event.told ? "Retry-After" : "backoff", why));
  }

  /** Ends the waits of one model, or of all. */
  endWaits(key: string, at: number): void {
    const its = this.asked.get(key)?.bars ?? [];
    this.waits = this.waits.filter((wait) => {
      if (key && !its.includes(wait)) return true;
      wait.to = Math.min(wait.to ?? at, Math.max(at, wait.from));
      return false;
    });
  }

  endModel({ response, at_s }: RunEvent): void {
    this.endWaits("", at_s);
    if (!this.step) return;
    for (const block of response.thinking ?? []) if (block.text) this.step.details.push(["Reasoning", block.text]);
    if (response.text) this.step.details.push(["Said", response.text]);
    this.step.note ||= brief(response.text ?? "");
  }

  beginTool({ tool, input, call_id, at_s }: RunEvent): void {
    this.tools += 1;
    const its = lane("tool", tool, inputBrief(input), call_id);
    its.details.push(["Input", pretty(input)]);
    its.bars.push(bar("tool", at_s, "open"));
    this.lanes.push(its);
    this.open.set(`tool ${call_id}`, { lane: its, bar: its.bars[0]! });
  }

  endTool({ call_id, content, is_error, at_s }: RunEvent): void {
    const found = this.open.get(`tool ${call_id}`);
    if (!found) return;
    found.lane.details.push([is_error ? "Error" : "Observation", pretty(content)]);
    if (content.includes('"cite"')) this.keepPassages(content);
    if (found.bar.outcome === "left running") return; // what it says is that it was left
    found.bar.to = at_s;
    found.bar.outcome = is_error ? "error" : "ok";
    this.open.delete(`tool ${call_id}`);
  }

  /** Reads what the tool `retrieval` has shown (tools/retrieval.py). */
  private keepPassages(content: string): void {
    let shown: any;
    try {
      shown = JSON.parse(content);
    } catch {
      return;
    }
    for (const passage of Array.isArray(shown?.passages) ? shown.passages : []) {
      if (typeof passage?.cite === "string" && this.passages.size < MOST_PASSAGES) this.passages.set(passage.cite, passage);
    }
  }

  beginRetrieval({ operation, collection, query, at_s, seq }: RunEvent): void {
    const its = lane("retrieval", `${operation} ${collection}`);
    its.details.push(["Asked", query]);
    its.bars.push(bar("retrieval", at_s, "open"));
    this.lanes.push(its);
    this.open.set(`retrieval ${seq}`, { lane: its, bar: its.bars[0]! });
  }

  endRetrieval({ started, found, stages, error, at_s }: RunEvent): void {
    const its = this.open.get(`retrieval ${started}`);
    if (!its) return;
    this.open.delete(`retrieval ${started}`);
    its.bar.to = at_s;
    its.bar.outcome = error === "cancelled" ? "cancelled" : error ? "error" : "ok";
    its.lane.note = error ? "" : `${found} found`;
    for (const { name, state, elapsed_s, reason } of stages ?? []) {
      its.lane.details.push([name, [state, state !== "skipped" && seconds(elapsed_s), reason].filter(Boolean).join(" · ")]);
    }
    if (error) its.lane.details.push(["Error", error]);
  }

  abandon({ what, name, call_id }: RunEvent): void {
    const found = this.open.get(`tool ${call_id}`);
    if (found) found.bar.outcome = "left running";
    this.note(`${what} ${name} ignored its cancellation and was left running`);
  }

  endAbandoned({ what, name, call_id, late_s, at_s }: RunEvent): void {
    const found = this.open.get(`tool ${call_id}`);
    if (found) found.bar.to = at_s;
    this.open.delete(`tool ${call_id}`);
    this.note(`${what} ${name} ended ${seconds(late_s)} after it was left running`);
  }

  remember(event: RunEvent, did: string): void {
    const from = Math.max(0, event.at_s - event.elapsed_s);
    if (did === "stored") {
      this.endStep(from);
      this.stored = [from, event.at_s];
    }
    const its = lane("memory", `Memory ${did}`, counted(event.messages, "message"));
    its.bars.push({ ...bar("memory", from, "ok"), to: event.at_s });
    if (event.session_id) its.details.push(["Session", event.session_id]);
    this.lanes.push(its);
  }

  say(text: string): void {
    this.text += text;
  }

  unsay(why: string): void {
    this.text = "";
    this.note(`the stream began again: ${why}`);
  }

  note(text: string): void {
    this.notes.push({ at: this.now, text });
  }

  finish(result: Result): void {
    this.result = result;
    this.now = Math.max(this.now, result.elapsed_s);
    this.close(result.status === "paused" ? "ok" : "cancelled");
  }

  think(text: string): void {
    if (!this.step) return;
    this.step.note = brief(text);
    this.step.details.push(["Thought", text]);
  }

  private close(outcome: Outcome): void {
    this.endStep(this.now);
    this.endWaits("", this.now);
    for (const { bar: its } of this.open.values()) {
      if (its.outcome === "left running") continue; // it may go on for ever
      its.to = this.now;
      its.outcome = outcome;
    }
    this.open.clear();
  }
}

const TAKES: Record<string, (story: Story, event: RunEvent) => void> = {
  run_started: (story, event) => story.begin(event),
  memory_loaded: (story, event) => story.remember(event, "loaded"),
  memory_stored: (story, event) => story.remember(event, "stored"),
  memory_compacted: (story, event) => story.remember(event, event.summarised ? "summed up" : "cut short"),
  step_started: (story, event) => story.beginStep(event),
  attempt_started: (story, event) => story.beginAttempt(event),
  attempt_finished: (story, event) => story.endAttempt(event),
  retry_scheduled: (story, event) => story.scheduleRetry(event),
  limit_waited: (story, event) =>
    story.wait(event, Math.max(0, event.at_s - event.waited_s), event.at_s, "rate limit", event.limit ? `our own limit of ${event.limit}` : "our own limit"),
  fell_back: (story, event) => story.note(`${event.model} → ${event.next_model}: ${event.why}`),
  breaker_changed: (story, event) =>
    story.note(`circuit breaker of ${event.provider}/${event.model}: ${event.state.replaceAll("_", " ")}`),
  text_delta: (story, event) => story.say(event.text),
  stream_restarted: (story, event) => story.unsay(event.reason),
  model_finished: (story, event) => story.endModel(event),
  thought: (story, event) => story.think(event.text),
  tool_started: (story, event) => story.beginTool(event),
  approval_requested: (story, event) => story.note(`${event.tool} waits for a decision`),
  tool_finished: (story, event) => story.endTool(event),
  retrieval_started: (story, event) => story.beginRetrieval(event),
  retrieval_finished: (story, event) => story.endRetrieval(event),
  abandoned: (story, event) => story.abandon(event),
  abandoned_ended: (story, event) => story.endAbandoned(event),
  loop_blocked: (story, event) =>
    story.note(`${event.tool || event.place || "something"} blocked the event loop for ${seconds(event.blocked_s)}`),
  limit_reached: (story, event) => {
    story.lastWord = event.at_s;
    story.note(`limit reached: ${event.why}`);
  },
  warned: (story, event) => story.note(event.message),
  run_finished: (story, event) => story.finish(event.result),
};

function lane(kind: Kind, label: string, note = "", call = ""): Lane {
  return { kind, label, note, bars: [], details: [], call, run: "", asked: [] };
}

function bar(kind: Kind, from: number, outcome: Outcome, label = ""): Bar {
  return { kind, from, to: null, split: null, outcome, label };
}

export function laneEnds(lane: Lane, now: number): [from: number, to: number] {
  let from = Infinity;
  let to = 0;
  for (const its of lane.bars) {
    from = Math.min(from, its.from);
    to = Math.max(to, its.to ?? now);
  }
  return [from, to];
}

export function outcomeOf(lane: Lane): Outcome {
  return lane.bars.at(-1)?.outcome ?? "ok";
}
