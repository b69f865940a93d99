// Draws the lanes of a run: only the rows that are in sight, so that ten thousand cost what forty do.

import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { Content, CopyButton } from "./parts";
import { Sent } from "./requests";
import { type Bar, type Lane, laneEnds, outcomeOf, type Story } from "./story";
import { seconds } from "./words";

const ROW = 28;
const SPARE = 10;
const TICKS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];
const LONGEST = 50;

const LEGEND: [kind: string, name: string][] = [
  ["waited", "first token"],
  ["model", "model"],
  ["tool", "tool"],
  ["retrieval", "retrieval"],
  ["memory", "memory"],
  ["wait", "waiting"],
  ["error", "failed"],
  ["model cancelled", "cancelled, as a hedge that lost"],
  ["left-running", "left running"],
];

type Show = "everything" | "trouble" | "longest";
const SHOWS: [show: Show, name: string][] = [
  ["everything", "everything"],
  ["trouble", "what went wrong"],
  ["longest", "the longest"],
];

/** The axis: seconds from `0` to `end`, as shares of the width. */
interface Axis {
  end: number;
  at: (second: number) => string;
}

function axis(end: number): Axis {
  return { end, at: (second) => `${(100 * Math.min(Math.max(second / end, 0), 1)).toFixed(3)}%` };
}

function ticks(end: number): number[] {
  const gap = TICKS.find((gap) => end / gap <= 6) ?? end / 6;
  return Array.from({ length: Math.floor(end / gap) + 1 }, (_, index) => index * gap);
}

/** From the start to the deadline, always whole: what is used, the last word, what is left. */
export function Ribbon({ story, now }: { story: Story; now: number }) {
  if (!story.timeout) return null;
  const whole = axis(Math.max(story.timeout, now));
  const left = story.timeout - now;
  const explored = story.lastWord ?? story.stored?.[0] ?? now;
  const told = `${seconds(now)} of ${seconds(story.timeout)} used, ${left >= 0 ? `${seconds(left)} left` : `${seconds(-left)} too late`}`;
  return (
    <div class="ribbon">
      <div class="band" role="img" aria-label={told}>
        <i class="explore" style={{ width: whole.at(explored) }} title="exploring" />
        {story.lastWord !== null && (
          <i class="last" title="last word" style={{ left: whole.at(story.lastWord), width: whole.at(now - story.lastWord) }} />
        )}
        {story.stored && (
          <i class="store" title="storing" style={{ left: whole.at(story.stored[0]), width: whole.at(story.stored[1] - story.stored[0]) }} />
        )}
        <i class="end" style={{ left: whole.at(story.timeout) }} />
      </div>
      <p aria-hidden="true">
        <span>{seconds(now)} used</span>
        <b class={left < 0 ? "bad" : ""}>{left >= 0 ? `${seconds(left)} left` : `${seconds(-left)} too late`}</b>
        <span>deadline {seconds(story.timeout)}</span>
      </p>
    </div>
  );
}

/** A lane where it stands: below which other, and by how many seconds its clock is behind the run's. */
interface Place {
  lane: Lane;
  depth: number;
  offset: number;
  child: Story | undefined;
}

interface LanesProps {
  story: Story;
  now: number;
  version: number;
  /** The runs of sub-agents, by the call that each is for. */
  children: Map<string, Story>;
}

export function Lanes({ story, now, version, children }: LanesProps) {
  const [open, setOpen] = useState(new Set<string>());
  const [show, setShow] = useState<Show>("everything");
  const [whole, setWhole] = useState<boolean>();
  const [chosen, setChosen] = useState<Lane>();
  const last = Math.max(now, story.now, story.last);
  const toDeadline = whole ?? (story.timeout > 0 && last >= 0.1 * story.timeout);
  const scale = axis((toDeadline ? Math.max(story.timeout, last) : last) * 1.01 || 0.001);
  const rows = useMemo(
    () => rowsOf(shown(story.lanes, show, now), children, open, now),
    [story, version, show, children, open],
  );
  const unfold = (place: Place | undefined, wanted: boolean) => {
    if (!place?.child || open.has(place.lane.call) === wanted) return;
    const changed = new Set(open);
    if (wanted) changed.add(place.lane.call);
    else changed.delete(place.lane.call);
    setOpen(changed);
  };
  return (
    <section class="chart" aria-labelledby="lanes">
      <div class="bar-head">
        <h2 id="lanes">Timeline</h2>
        <label>
          Show
          <select value={show} onChange={(event) => setShow(event.currentTarget.value as Show)}>
            {SHOWS.map(([value, name]) => (
              <option value={value}>{name}</option>
            ))}
          </select>
        </label>
        {story.timeout > 0 && (
          <button type="button" aria-pressed={toDeadline} onClick={() => setWhole(!toDeadline)}>
            Up to the deadline
          </button>
        )}
      </div>
      <Grid rows={rows} story={story} scale={scale} now={now} chosen={chosen} choose={setChosen} open={open} unfold={unfold} />
      <ul class="legend" aria-label="What the bars are">
        {LEGEND.map(([kind, name]) => (
          <li>
            <i class={`mark ${kind}`} /> {name}
          </li>
        ))}
      </ul>
      {chosen ? (
        <Detail lane={chosen} now={now} />
      ) : (
        <p class="hint">Choose a row, by mouse or arrow keys, for its thought, input and observation, and what the model was asked.</p>
      )}
    </section>
  );
}

function shown(lanes: Lane[], show: Show, now: number): Lane[] {
  if (show === "trouble") {
    return lanes.filter((lane) => lane.bars.some((bar) => bar.kind === "wait" || !["ok", "open"].includes(bar.outcome)));
  }
  if (show === "longest") {
    const took = (lane: Lane) => {
      const [from, to] = laneEnds(lane, now);
      return to - from;
    };
    const longest = lanes.filter((lane) => lane.kind !== "step").sort((one, other) => took(other) - took(one));
    return longest.slice(0, LONGEST);
  }
  return lanes;
}

/** What the grid shows: how many rows, and what stands in one. */
interface Rows {
  length: number;
  at: (index: number) => Place | undefined;
}

function rowsOf(lanes: Lane[], children: Map<string, Story>, open: Set<string>, now: number): Rows {
  if (open.size) {
    const rows = placed(lanes, children, open, now);
    return { length: rows.length, at: (index) => rows[index] };
  }
  // as they are: nothing is made for rows that nobody sees
  const place = (lane: Lane) => ({ lane, depth: 0, offset: 0, child: lane.call ? children.get(lane.call) : undefined });
  return { length: lanes.length, at: (index) => (lanes[index] ? place(lanes[index]) : undefined) };
}

/** Puts the lanes of opened sub-agents below the calls that they are for. */
function placed(lanes: Lane[], children: Map<string, Story>, open: Set<string>, now: number, depth = 0, offset = 0): Place[] {
  const rows: Place[] = [];
  for (const lane of lanes) {
    const child = lane.call ? children.get(lane.call) : undefined;
    rows.push({ lane, depth, offset, child });
    if (child && open.has(lane.call)) {
      const begins = offset + laneEnds(lane, now)[0];
      rows.push(...placed(child.lanes, children, open, now, depth + 1, begins));
    }
  }
  return rows;
}

interface GridProps {
  rows: Rows;
  story: Story;
  scale: Axis;
  now: number;
  chosen: Lane | undefined;
  choose: (lane: Lane) => void;
  open: Set<string>;
  unfold: (place: Place | undefined, wanted: boolean) => void;
}

function indexOf(rows: Rows, lane: Lane | undefined, before: number): number {
  if (!lane) return -1;
  if (rows.at(before)?.lane === lane) return before;
  for (let index = 0; index < rows.length; index++) if (rows.at(index)!.lane === lane) return index;
  return -1;
}

function Grid({ rows, story, scale, now, chosen, choose, open, unfold }: GridProps) {
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(600);
  useLayoutEffect(() => {
    const element = box.current!;
    const watch = new ResizeObserver(() => setHeight(element.clientHeight));
    watch.observe(element);
    return () => watch.disconnect();
  }, []);
  const first = Math.max(0, Math.floor(top / ROW) - SPARE);
  const until = Math.min(rows.length, Math.ceil((top + height) / ROW) + SPARE);
  const room = Math.ceil(height / ROW) + 2 * SPARE + 1;
  const inSight = Array.from({ length: Math.max(0, until - first) }, (_, offset) => first + offset);
  const place = useRef(-1); // where the chosen one was when it was seen last
  const at = indexOf(rows, chosen, place.current);
  place.current = at;

  const move = (index: number) => {
    const to = Math.min(Math.max(index, 0), rows.length - 1);
    const wanted = rows.at(to);
    if (!wanted) return;
    place.current = to; // or all rows would be looked through for it
    choose(wanted.lane);
    const element = box.current!;
    const head = element.querySelector<HTMLElement>(".axis")!.offsetHeight;
    const room = element.clientHeight - head - ROW;
    if (to * ROW < element.scrollTop) element.scrollTop = to * ROW;
    else if (to * ROW > element.scrollTop + room) element.scrollTop = to * ROW - room;
    setTop(element.scrollTop); // now, or the event of the scroll would have all rows drawn a second time
  };
  const page = Math.max(1, Math.floor(height / ROW) - 2);
  const keys: Record<string, () => void> = {
    ArrowDown: () => move(at + 1),
    ArrowUp: () => move(at - 1),
    PageDown: () => move(at + page),
    PageUp: () => move(at - page),
    Home: () => move(0),
    End: () => move(rows.length - 1),
    ArrowRight: () => unfold(rows.at(at), true),
    ArrowLeft: () => unfold(rows.at(at), false),
  };
  const onKeyDown = (event: KeyboardEvent) => {
    const act = keys[event.key];
    if (!act || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    act();
  };
  return (
    <div
      class="lanes"
      role="treegrid"
      tabIndex={0}
      ref={box}
      aria-label="What happened, and when"
      aria-rowcount={rows.length + 1}
      aria-activedescendant={at >= first && at < until ? `lane-${at}` : undefined}
      onKeyDown={onKeyDown}
      onScroll={(event) => setTop(event.currentTarget.scrollTop)}
    >
      <div class="axis" role="row" aria-rowindex={1}>
        <span role="columnheader">What</span>
        <span role="columnheader" class="track">
          <span class="unseen">When</span>
          {ticks(scale.end).map((tick) => (
            <i aria-hidden="true" style={{ left: scale.at(tick) }}>{seconds(tick) || "0"}</i>
          ))}
        </span>
        <span role="columnheader" class="took">Took</span>
      </div>
      <div class="rows" role="presentation" style={{ height: `${rows.length * ROW}px` }}>
        <Marks story={story} scale={scale} now={now} />
        {inSight.map((index) => (
          <Row
            key={index % room} // a row that goes out of sight is the one that comes into it
            index={index}
            place={rows.at(index)!}
            scale={scale}
            now={now}
            chosen={index === at}
            choose={() => move(index)}
            open={open}
            unfold={unfold}
          />
        ))}
      </div>
    </div>
  );
}

function Marks({ story, scale, now }: { story: Story; scale: Axis; now: number }) {
  return (
    <div class="marks" role="presentation">
      {ticks(scale.end).map((tick) => (
        <i style={{ left: scale.at(tick) }} />
      ))}
      {story.lastWord !== null && <i class="last" style={{ left: scale.at(story.lastWord) }} />}
      {!story.result && <i class="now" style={{ left: scale.at(now) }} />}
      {story.result && <i class="done" style={{ left: scale.at(story.result.elapsed_s) }} />}
      {story.timeout > 0 && story.timeout <= scale.end && <i class="deadline" style={{ left: scale.at(story.timeout) }} />}
    </div>
  );
}

interface RowProps {
  index: number;
  place: Place;
  scale: Axis;
  now: number;
  chosen: boolean;
  choose: () => void;
  open: Set<string>;
  unfold: (place: Place, wanted: boolean) => void;
}

function Row({ index, place, scale, now, chosen, choose, open: unfolded, unfold }: RowProps) {
  const { lane, depth, offset, child } = place;
  const open = unfolded.has(lane.call);
  const [from, to] = laneEnds(lane, now - offset).map((second) => second + offset) as [number, number];
  const outcome = outcomeOf(lane);
  const told = outcome === "ok" ? "" : outcome === "open" ? "under way" : outcome;
  return (
    <div
      id={`lane-${index}`}
      class={`row ${lane.kind} ${outcome.replace(" ", "-")}${chosen ? " chosen" : ""}${depth ? " inner" : ""}`}
      role="row"
      aria-level={depth + (lane.kind === "step" ? 1 : 2)}
      aria-expanded={child && open}
      aria-rowindex={index + 2}
      aria-selected={chosen}
      style={{ top: `${index * ROW}px` }}
      onClick={choose}
    >
      <span class="name" role="gridcell">
        {child && (
          <span class="fold" onClick={() => unfold(place, !open)}>
            {open ? "▾" : "▸"}
          </span>
        )}
        <b>{lane.label}</b> <small>{[told, lane.note !== told && lane.note].filter(Boolean).join(" · ")}</small>
      </span>
      <span class="track" role="gridcell" aria-label={`from ${seconds(from)} to ${seconds(to)}${told && `, ${told}`}`}>
        {lane.bars.map((bar) => (
          <Mark bar={bar} scale={scale} now={now} offset={offset} />
        ))}
      </span>
      <span class="took" role="gridcell">{seconds(to - from)}</span>
    </div>
  );
}

function Mark({ bar, scale, now, offset }: { bar: Bar; scale: Axis; now: number; offset: number }) {
  const to = bar.to ?? (bar.outcome === "left running" ? scale.end : now) - offset;
  const style = { left: scale.at(bar.from + offset), width: `max(3px, ${scale.at(to - bar.from)})` };
  const share = bar.split !== null && to > bar.from ? (100 * (bar.split - bar.from)) / (to - bar.from) : 0;
  const tip = `${bar.label || bar.kind}: ${seconds(to - bar.from)} (${seconds(bar.from + offset)} → ${seconds(to + offset)})`;
  return (
    <i class={`mark ${bar.kind} ${bar.outcome.replace(" ", "-")}`} style={style} title={tip}>
      {share > 0 && <em style={{ width: `${share.toFixed(2)}%` }} />}
    </i>
  );
}

function Detail({ lane, now }: { lane: Lane; now: number }) {
  const [from, to] = laneEnds(lane, now);
  return (
    <section class="detail" aria-label={`Detail of ${lane.label}`} aria-live="polite">
      <h3>{lane.label}</h3>
      <dl>
        <dt>Time</dt>
        <dd>
          {seconds(from)} → {seconds(to)} ({seconds(to - from)})
        </dd>
        {lane.details.map(([head, text], index) => (
          <>
            <dt key={`head-${index}`}>{head}</dt>
            <dd key={index}>
              <Content text={text} />
            </dd>
          </>
        ))}
      </dl>
      <CopyButton text={() => JSON.stringify({ label: lane.label, bars: lane.bars, details: lane.details }, null, 2)}>Copy as JSON</CopyButton>
      {lane.asked.length > 0 && <Sent key={`${lane.run} ${lane.asked[0]}`} run={lane.run} seqs={lane.asked} />}
    </section>
  );
}
