// Runs as a file of their own: what `factory trace --html` writes, drawn by the module that draws them in the console.

import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { breathe } from "./api";
import { partName, RunTable } from "./parts";
import { Requests } from "./requests";
import { Story } from "./story";
import type { Asked, RunEvent, Spent } from "./types";
import { RunView, statusOf } from "./view";
import { seconds } from "./words";

interface Kept {
  story: Story;
  spent?: Spent;
}

const runs = new Map<string, Kept>();
const asked = new Map<string, Asked[]>();

function runOf(id: string): Kept {
  let its = runs.get(id);
  if (!its) runs.set(id, (its = { story: new Story() }));
  return its;
}

/** Takes the file's blocks one by one, so that the page can be moved between two of them. */
async function read(): Promise<void> {
  for (const block of document.querySelectorAll("script[type='application/json']")) {
    const told: { events: RunEvent[]; requests: (Asked & { run_id: string })[]; spent: Record<string, Spent> } = JSON.parse(block.textContent!);
    for (const event of told.events) runOf(event.run_id).story.take(event);
    for (const one of told.requests) {
      const its = asked.get(one.run_id);
      if (its) its.push(one);
      else asked.set(one.run_id, [one]);
    }
    for (const [id, spent] of Object.entries(told.spent)) runOf(id).spent = spent;
    block.remove();
    await breathe();
  }
  for (const { story } of runs.values()) if (!story.result) story.cutOff();
}

const requests = new Requests(async (run, after, limit) => (asked.get(run) ?? []).filter((one) => one.seq > after).slice(0, limit));

/** The runs that nobody else's run began. */
function outer(): [string, Kept][] {
  return [...runs].filter(([, { story }]) => !runs.has(story.parent));
}

function Trace() {
  const [id, setId] = useState(location.hash.slice(1));
  useEffect(() => {
    const changed = () => (setId(location.hash.slice(1)), scrollTo(0, 0));
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  const all = outer();
  const one = all.length === 1 ? all[0] : all.find(([its]) => its === decodeURIComponent(id));
  if (!one) return <main><Index runs={all} /></main>;
  const [its, { story, spent }] = one;
  const children = new Map([...runs.values()].filter((kept) => kept.story.parent === its).map((kept) => [kept.story.parentCall, kept.story]));
  return (
    <main>
      <RunView key={its} id={its} story={story} now={Math.max(story.now, story.last)} version={0} children={children} spent={spent} requests={requests} back={all.length > 1 ? "#" : ""} />
    </main>
  );
}

const MOST_LISTED = 5000;

function Index({ runs }: { runs: [string, Kept][] }) {
  return (
    <>
      <h1>{runs.length.toLocaleString("en")} runs</h1>
      <RunTable
        lines={runs.slice(0, MOST_LISTED).map(([id, { story, spent }]) => ({
          id,
          href: `#${encodeURIComponent(id)}`,
          began: story.startedAt,
          status: statusOf(story, undefined),
          why: story.result?.stop_reason,
          question: story.question,
          rehearsal: story.rehearsal,
          agent: story.agent,
          took: story.now,
          longest: spent?.parts[0] ? `${partName(spent.parts[0])} ${seconds(spent.parts[0].seconds)}` : "",
        }))}
      />
    </>
  );
}

for (const style of document.querySelectorAll<HTMLStyleElement>("style[media='not all']")) style.media = "all";
read().then(() => render(<Trace />, document.getElementById("trace")!));
