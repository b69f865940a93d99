// The agents that may be run, and what their definitions say.

import { useEffect, useState } from "preact/hooks";
import { ask } from "./api";
import { Trouble } from "./parts";
import type { Agent } from "./types";
import { seconds } from "./words";

export function Agents({ name }: { name: string }) {
  const [agents, setAgents] = useState<Agent[]>();
  const [wrong, setWrong] = useState("");
  useEffect(() => {
    ask<{ agents: Agent[] }>("/v1/agents").then((told) => setAgents(told.agents), (error) => setWrong(error.message));
  }, []);
  if (wrong) return <Trouble text={wrong} />;
  if (!agents) return <p class="waiting">Looking…</p>;
  return (
    <>
      <h1>Agents</h1>
      <ul class="cards">
        {agents.map((agent) => (
          <li class="card" id={agent.name === name ? "chosen" : undefined}>
            <h2>{agent.name}</h2>
            <p>{agent.description}</p>
            <dl class="facts">
              <div><dt>Model</dt><dd>{agent.rehearsal ? "rehearsal" : agent.model}</dd></div>
              <div><dt>Tools</dt><dd>{agent.tools.join(", ") || "none"}</dd></div>
              <div><dt>Memory</dt><dd>{agent.memory ? "yes" : "none"}</dd></div>
              <div><dt>Time</dt><dd>{seconds(agent.timeout_s)}</dd></div>
            </dl>
            <p class="actions">
              <a href={`#/chat/${encodeURIComponent(agent.name)}`}>Chat with {agent.name}</a>
              <a href={`#/runs?agent=${encodeURIComponent(agent.name)}`}>Runs of {agent.name}</a>
            </p>
          </li>
        ))}
      </ul>
    </>
  );
}
