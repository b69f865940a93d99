// A run as a scenario that plays it again: what each model said, what each tool saw, what went wrong (docs/scenarios.md).

import type { RunEvent } from "./types";

/** Failures by the kind of their error, as faults of a scenario. */
const FAULTS: Record<string, string> = {
  connection: "connection_refused",
  timeout: "silence",
  rate_limited: "rate_limited",
  unavailable: "server_error",
  malformed: "malformed_body",
  interrupted: "cut",
  authentication: "unauthorized",
  model_not_found: "model_missing",
  bad_request: "bad_request",
  context_overflow: "context_too_long",
  content_filter: "content_filter",
};

const MOST_MS = 1000;

interface Fault {
  on: string;
  fault: string;
  attempts: number[];
  status?: number;
  retry_after_s?: number;
}

/** Takes the events of a run, and of those of its sub-agents, in their order. */
export class Scenario {
  private question = "";
  private agent = "";
  private timeout = 0;
  private models: Record<string, unknown[]> = {};
  private tools: Record<string, unknown[]> = {};
  private outcomes = new Map<string, { at: number; its: Record<string, unknown> }>();
  private faults: Fault[] = [];
  private counts: Record<string, number> = {};
  private numbers = new Map<string, number>();
  private first: Record<string, number> = {};
  private called: string[] = [];
  private expect: Record<string, unknown> = {};
  private said = "";

  take(event: RunEvent): void {
    switch (event.type) {
      case "run_started":
        this.question ||= event.question;
        this.agent ||= event.agent;
        this.timeout ||= event.timeout_s;
        break;
      case "attempt_started": {
        const model = `${event.provider}/${event.model}`;
        this.counts[model] = (this.counts[model] ?? 0) + 1;
        this.numbers.set(`${model} ${event.number}`, this.counts[model]);
        break;
      }
      case "attempt_finished":
        this.tried(event.attempt);
        break;
      case "retry_scheduled":
        if (event.told && this.faults.length) this.faults.at(-1)!.retry_after_s = round(event.wait_s);
        break;
      case "model_finished":
        this.answered(event.response);
        break;
      case "tool_started": {
        const its: Record<string, unknown> = {};
        (this.tools[event.tool] ??= []).push(its);
        this.outcomes.set(event.call_id, { at: event.at_s, its });
        this.called.push(event.tool);
        break;
      }
      case "tool_finished": {
        const outcome = this.outcomes.get(event.call_id);
        if (!outcome) break;
        const took = round(event.at_s - outcome.at);
        outcome.its[event.is_error ? "error" : "result"] = event.content;
        if (took * 1000 >= MOST_MS) outcome.its.delay_s = took;
        break;
      }
      case "run_finished":
        this.ended(event.result);
    }
  }

  private tried(attempt: Record<string, any>): void {
    const model = `${attempt.provider}/${attempt.model}`;
    if (attempt.outcome === "ok") this.first[model] = round((attempt.first_token_s ?? attempt.ended_s) - attempt.started_s);
    const fault = FAULTS[attempt.outcome];
    if (!fault) return;
    const number = this.numbers.get(`${model} ${attempt.number}`) ?? attempt.number;
    const told: Fault = { on: `model ${model}`, fault, attempts: [number] };
    if (fault === "server_error" && attempt.status_code) told.status = attempt.status_code;
    this.faults.push(told);
  }

  private answered(response: Record<string, any>): void {
    const model = `${response.provider}/${response.requested_model || response.model}`;
    const calls = (response.tool_calls ?? []).map((call: any) => ({ tool: call.name, input: call.arguments }));
    const turn: Record<string, unknown> = {};
    if (response.text) turn.text = response.text;
    if (calls.length) turn.calls = calls;
    const delay = this.first[model] ?? 0;
    if (delay * 1000 >= MOST_MS) turn.delay_s = delay;
    const { input_tokens, output_tokens } = response.usage ?? {};
    if (input_tokens || output_tokens) turn.usage = { input_tokens, output_tokens };
    (this.models[model] ??= []).push(turn);
    this.said = response.text;
  }

  private ended(result: Record<string, any>): void {
    this.expect = { status: result.status, stop_reason: result.stop_reason };
    if (result.answer) this.expect.answer = result.answer === this.said ? result.answer : { contains: this.said || result.answer };
    this.expect.tools = { exact: this.called };
    this.expect.attempts = this.counts;
  }

  /** The scenario's file; `definition` is the agent's, beside which it is put. */
  text(definition: string): string {
    const whole: Record<string, unknown> = {
      scenario: `a run of ${this.agent}, played again`,
      agent: definition,
      question: this.question,
      timeout_s: this.timeout || undefined,
      models: this.models,
      tools: Object.keys(this.tools).length ? this.tools : undefined,
      faults: this.faults.length ? this.faults : undefined,
      expect: this.expect,
    };
    const told = Object.entries(whole).filter(([, value]) => value !== undefined);
    return `${told.map(([key, value]) => yaml(key, value, "")).join("\n")}\n`;
  }
}

function round(value: number): number {
  return Math.round(value * 1000) / 1000;
}

/** A key and its value as YAML: mappings and lists as lines, what is small or a text as JSON, which YAML reads as well. */
function yaml(key: string, value: unknown, indent: string): string {
  const head = `${indent}${/^[a-z_]+$/.test(key) ? key : JSON.stringify(key)}:`;
  if (Array.isArray(value) && value.length) return [head, ...value.map((each) => `${indent}- ${JSON.stringify(each)}`)].join("\n");
  if (value && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length) {
    return [head, ...Object.entries(value).map(([name, its]) => yaml(name, its, `${indent}  `))].join("\n");
  }
  return `${head} ${JSON.stringify(value)}`;
}
