// What the service tells, as far as the page reads it (docs/service.md).

export interface Usage {
  input_tokens: number;
  output_tokens: number;
  cached_input_tokens: number;
  total_tokens: number;
}

export interface Part {
  kind: string;
  name: string;
  seconds: number;
}

export interface Call {
  tool: string;
  input: Record<string, unknown> | string;
  call_id: string;
}

export interface StillRunning {
  tool: string;
  call_id: string;
  since_s: number;
}

export interface Result {
  status: string;
  stop_reason: string;
  answer: string | null;
  error: string | null;
  elapsed_s: number;
  cost_usd: number | null;
  usage: Usage;
  still_running: StillRunning[];
  pending: Call[];
}

export interface Run {
  run_id: string;
  agent: string;
  model: string;
  source: string;
  session_id: string | null;
  parent_run_id: string | null;
  question: string;
  status: string;
  stop_reason: string;
  answer: string | null;
  error: string | null;
  started_at: string;
  timeout_s: number;
  elapsed_s: number | null;
  usage: Usage;
  cost_usd: number | null;
  longest: string;
  longest_s: number | null;
  why: string;
  parts: Part[];
  rehearsal: boolean;
  result: Result | null;
  usual?: { runs: number; elapsed_s: number; parts: Part[] } | null;
}

export interface Page {
  runs: Run[];
  next: string | null;
}

/** An event of a run; which fields it has depends on its type (atomic/events.py). */
export interface RunEvent {
  type: string;
  run_id: string;
  seq: number;
  at_s: number;
  [field: string]: any;
}

export interface Message {
  role: string;
  content?: string | { type: string; text?: string; url?: string }[];
  tool_calls?: { id: string; name: string; arguments?: unknown; malformed?: string }[];
  thinking?: { text: string }[];
  name?: string;
  is_error?: boolean;
}

/** What a request to a model adds to the first `kept` messages of the request `base`; null is as there. */
export interface Asked {
  seq: number;
  provider: string;
  model: string;
  base: number | null;
  kept: number;
  messages: Message[];
  tools: { name: string; description: string; parameters: unknown }[] | null;
  options: Record<string, unknown> | null;
}

/** What the time of a run went on. */
export interface Spent {
  parts: Part[];
  why: string;
}

export interface Agent {
  name: string;
  description: string;
  model: string;
  rehearsal: boolean;
  tools: string[];
  memory: boolean;
  timeout_s: number;
}

export interface Session {
  open: boolean;
  team: string;
  name: string;
  key_id: string;
  scopes: string[];
}
