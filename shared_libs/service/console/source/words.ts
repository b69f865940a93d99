// How figures are said, the same as in the terminal (observability/wording.py).

export function seconds(value: number | null | undefined): string {
  if (value == null) return "";
  if (value < 0.0005) return "0 ms";
  if (value < 0.9995) return `${(value * 1000).toFixed(0)} ms`;
  if (value < 99.95) return value < 9.995 ? `${value.toFixed(2)} s` : `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  const two = (part: number): string => String(part % 60).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${two(whole)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60))} m`;
}

export function money(value: number | null | undefined): string {
  if (value == null) return "";
  return value > 0 && value < 0.0001 ? "<$0.0001" : `$${value.toFixed(4)}`;
}

export function counted(count: number, what: string): string {
  return `${count.toLocaleString("en")} ${what}${count === 1 ? "" : "s"}`;
}

export function clock(iso: string): string {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return iso;
  const time = at.toLocaleTimeString("en-GB", { hour12: false });
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString("en-CA")} ${time}`;
}

/** One line of at most so many characters. */
export function brief(text: unknown, most = 300): string {
  const whole = typeof text === "string" ? text : (JSON.stringify(text) ?? "");
  const line = whole.slice(0, most * 2).replace(/\s+/g, " ").trim();
  return line.length <= most ? line : `${line.slice(0, most)}…`;
}

/** A tool's input in one line: the value alone where there is only one. */
export function inputBrief(input: unknown): string {
  const values = input && typeof input === "object" ? Object.values(input) : [input];
  return brief(values.length === 1 ? values[0] : input);
}

/** JSON in lines, where it is some; any other text as it is. */
export function pretty(text: unknown): string {
  if (typeof text !== "string") return JSON.stringify(text, null, 2) ?? "";
  if (text.length > 20_000 || !/^\s*[[{]/.test(text)) return text;
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
