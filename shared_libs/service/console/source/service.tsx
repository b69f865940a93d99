// How the service stands.

import { useEffect, useState } from "preact/hooks";
import { ask } from "./api";
import { Trouble } from "./parts";

interface Ready {
  status: string;
  entries: number;
  runs: number;
  problems: Record<string, string[]>;
}

export function ServicePage() {
  const [ready, setReady] = useState<Ready>();
  const [wrong, setWrong] = useState("");
  useEffect(() => {
    ask<Ready>("/readyz").then(setReady, (error) => setWrong(error.message));
  }, []);
  if (wrong) return <Trouble text={wrong} />;
  if (!ready) return <p class="waiting">Looking…</p>;
  return (
    <>
      <h1>Service</h1>
      <dl class="facts">
        <div><dt>State</dt><dd>{ready.status}</dd></div>
        <div><dt>Agents and chains</dt><dd>{ready.entries}</dd></div>
        <div><dt>Runs under way</dt><dd>{ready.runs}</dd></div>
      </dl>
    </>
  );
}
