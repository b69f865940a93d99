// The page: who asks, what is looked at, and the frame around it.

import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { Agents } from "./agents";
import { ask, post, Refused } from "./api";
import { Chat } from "./chat";
import { Documents } from "./documents";
import { Trouble } from "./parts";
import { RunPage } from "./run";
import { Runs } from "./runs";
import { ServicePage } from "./service";
import type { Session } from "./types";

const PLACES: [hash: string, name: string][] = [
  ["runs", "Runs"],
  ["chat", "Chat"],
  ["agents", "Agents"],
  ["documents", "Documents"],
  ["service", "Service"],
];

function useHash(): string[] {
  const read = () => location.hash.replace(/^#\/?/, "").split("?")[0]!.split("/").map(decodeURIComponent);
  const [parts, set] = useState(read);
  useEffect(() => {
    const changed = () => set(read());
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  return parts[0] ? parts : ["runs"];
}

function App() {
  const [session, setSession] = useState<Session | null>();
  const [trouble, setTrouble] = useState("");
  const parts = useHash();
  const [place, what] = parts;
  const look = () =>
    ask<Session>("/v1/session").then(setSession, (error) => {
      if (error instanceof Refused && error.status === 401) setSession(null);
      else setTrouble(String(error.message));
    });
  useEffect(() => void look(), []);
  useEffect(() => {
    document.title = `${what || PLACES.find(([hash]) => hash === place)?.[1] || "Runs"} · GenAI Factory`;
    document.querySelector<HTMLElement>("main")?.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [place, what]);

  if (trouble) return <Trouble text={trouble} />;
  if (session === undefined) return <p class="waiting">Looking…</p>;
  if (session === null) return <SignIn onIn={look} />;
  return (
    <>
      <a class="skip" href="#content" onClick={(event) => (event.preventDefault(), document.querySelector("main")?.focus())}>
        To the content
      </a>
      <header class="top">
        <strong>GenAI Factory</strong>
        <nav aria-label="Places">
          {PLACES.map(([hash, name]) => (
            <a href={`#/${hash}`} aria-current={hash === place ? "page" : undefined}>
              {name}
            </a>
          ))}
        </nav>
        {!session.open && (
          <span class="who">
            {session.name}
            {session.team && ` · ${session.team}`}
            <button
              type="button"
              onClick={() => ask("/v1/session", { method: "DELETE" }).then(() => setSession(null))}
            >
              Leave
            </button>
          </span>
        )}
      </header>
      <main id="content" tabIndex={-1}>
        {place === "runs" && (what ? <RunPage key={what} id={what} /> : <Runs />)}
        {place === "chat" && <Chat key={what ?? ""} name={what ?? ""} />}
        {place === "agents" && <Agents name={what ?? ""} />}
        {place === "documents" && <Documents name={what ?? ""} />}
        {place === "service" && <ServicePage />}
        {!PLACES.some(([hash]) => hash === place) && (
          <>
            <h1>Nothing here</h1>
            <p>
              There is nothing at this address. <a href="#/runs">All runs</a>
            </p>
          </>
        )}
      </main>
    </>
  );
}

function SignIn({ onIn }: { onIn: () => void }) {
  const [key, setKey] = useState("");
  const [wrong, setWrong] = useState("");
  const enter = async (event: Event) => {
    event.preventDefault();
    try {
      await post("/v1/session", {}, { authorization: `Bearer ${key.trim()}` });
      onIn();
    } catch (error) {
      setWrong((error as Error).message);
    }
  };
  return (
    <main class="door">
      <h1>GenAI Factory</h1>
      <form onSubmit={enter}>
        <label for="key">Key</label>
        <input
          id="key"
          type="password"
          autocomplete="off"
          required
          value={key}
          aria-describedby="key-note"
          onInput={(event) => setKey(event.currentTarget.value)}
        />
        <p id="key-note">
          <code>factory keys new</code> makes one. It is kept in a cookie that no script can read, for eight hours.
        </p>
        {wrong && <p role="alert" class="bad">{wrong}</p>}
        <button type="submit" class="main">Enter</button>
      </form>
    </main>
  );
}

render(<App />, document.getElementById("console")!);
