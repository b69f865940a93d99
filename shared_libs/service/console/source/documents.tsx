// Collections of documents: what there is, passages that answer a question, and where they stand in their document.

import { useEffect, useRef, useState } from "preact/hooks";
import { ask, post } from "./api";
import { Trouble } from "./parts";

interface Collection {
  name: string;
  embedder: { model?: string } | null;
  graph: boolean;
}

interface Hit {
  id: string;
  document: string;
  source: string;
  title: string;
  heading: string;
  start: number;
  end: number;
  text: string;
}

interface Found {
  hits: Hit[];
  stages: { name: string; reason: string }[];
  notes: string[];
}

/** Characters of a document around a passage that are shown. */
const AROUND = 1500;

export function Documents({ name }: { name: string }) {
  const [collections, setCollections] = useState<Collection[]>();
  const [wrong, setWrong] = useState("");
  const [question, setQuestion] = useState("");
  const [found, setFound] = useState<Found>();
  const [busy, setBusy] = useState(false);
  const [chosen, setChosen] = useState<Hit>();
  useEffect(() => {
    ask<{ collections: Collection[] }>("/v1/collections").then((told) => setCollections(told.collections), (error) => setWrong(error.message));
  }, []);
  const collection = collections?.find((each) => each.name === name) ?? collections?.[0];
  const search = async (event: Event) => {
    event.preventDefault();
    if (!collection || !question.trim()) return;
    setBusy(true);
    setChosen(undefined);
    try {
      setFound(await post<Found>(`/v1/collections/${encodeURIComponent(collection.name)}/retrieve`, { question: question.trim() }));
      setWrong("");
    } catch (error) {
      setWrong((error as Error).message);
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      <h1>Documents</h1>
      {wrong && <Trouble text={wrong} />}
      {collections && !collection && <p class="empty">There is no collection; `factory index PATH --collection NAME` makes one.</p>}
      {collections && collection && (
        <form class="filters" role="search" onSubmit={search}>
          <label>
            Collection
            <select value={collection.name} onChange={(event) => (location.hash = `#/documents/${encodeURIComponent(event.currentTarget.value)}`)}>
              {collections.map((each) => (
                <option value={each.name}>{each.name}</option>
              ))}
            </select>
          </label>
          <label>
            Question
            <input type="search" value={question} onInput={(event) => setQuestion(event.currentTarget.value)} />
          </label>
          <button type="submit" class="main" disabled={busy}>
            Find
          </button>
        </form>
      )}
      {found && (
        <section aria-labelledby="passages" aria-live="polite">
          <h2 id="passages">{found.hits.length ? "Passages, the best first" : "No passage was found"}</h2>
          <p class="byline">{[...found.stages.filter((stage) => stage.reason).map((stage) => `${stage.name}: ${stage.reason}`), ...found.notes].join(" · ")}</p>
          <ol class="hits">
            {found.hits.map((hit) => (
              <li class="card">
                <h3>
                  <button type="button" class="plainly" aria-pressed={hit === chosen} onClick={() => setChosen(hit === chosen ? undefined : hit)}>
                    {hit.title || hit.source}
                  </button>
                </h3>
                <p class="byline">
                  [{hit.id.slice(0, 8)}] · {[hit.source, hit.heading].filter(Boolean).join(" · ")} · characters {hit.start} to {hit.end}
                </p>
                <p class="text">{hit.text.slice(0, 2000)}</p>
                {hit === chosen && collection && <InPlace collection={collection.name} hit={hit} />}
              </li>
            ))}
          </ol>
        </section>
      )}
    </>
  );
}

/** The passage where it stands in its document. */
function InPlace({ collection, hit }: { collection: string; hit: Hit }) {
  const [text, setText] = useState<string | null>();
  const [wrong, setWrong] = useState("");
  const mark = useRef<HTMLElement>(null);
  useEffect(() => {
    const path = `/v1/collections/${encodeURIComponent(collection)}/documents/${encodeURIComponent(hit.document)}`;
    ask<{ text: string | null }>(path).then((told) => setText(told.text), (error) => setWrong(error.message));
  }, [collection, hit.document]);
  useEffect(() => mark.current?.scrollIntoView({ block: "nearest" }), [text]);
  if (wrong) return <Trouble text={wrong} />;
  if (text == null) return <p class="waiting">{text === null ? "Its text is not kept." : "Looking…"}</p>;
  // offsets count characters, and a character beyond the first plane is two units of JavaScript's strings
  const characters = /[\ud800-\udbff]/.test(text) ? Array.from(text) : text;
  const part = (from: number, to: number) => {
    const found = characters.slice(Math.max(0, from), to);
    return typeof found === "string" ? found : found.join("");
  };
  return (
    <pre class="source" tabIndex={0} role="region" aria-label={`${hit.source}, around the passage`}>
      {hit.start > AROUND && "…"}
      {part(hit.start - AROUND, hit.start)}
      <mark ref={mark}>{part(hit.start, hit.end)}</mark>
      {part(hit.end, hit.end + AROUND)}
      {hit.end + AROUND < characters.length && "…"}
    </pre>
  );
}
