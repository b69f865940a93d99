// The agents that may be run, what their definitions say, and what checking them has said.

import { useEffect, useState } from "preact/hooks";
import { ask } from "./api";
import { CopyButton, Trouble } from "./parts";
import type { Agent } from "./types";
import { seconds } from "./words";

interface Defined extends Agent {
  file: string;
  definition: string;
  problems: string[];
  notes: string[];
}

export function Agents({ name }: { name: string }) {
  const [agents, setAgents] = useState<Agent[]>();
  const [wrong, setWrong] = useState("");
  useEffect(() => {
    ask<{ agents: Agent[] }>("/v1/agents").then((told) => setAgents(told.agents), (error) => setWrong(error.message));
  }, []);
  if (name) return <OneAgent key={name} name={name} />;
  if (wrong) return <Trouble text={wrong} />;
  if (!agents) return <p class="waiting">Looking…</p>;
  return (
    <>
      <h1>Agents</h1>
      <ul class="cards">
        {agents.map((agent) => (
          <li class="card">
            <h2>
              <a href={`#/agents/${encodeURIComponent(agent.name)}`}>{agent.name}</a>
            </h2>
            <p>{agent.description}</p>
            <AgentFacts agent={agent} />
            <Ways agent={agent} />
          </li>
        ))}
      </ul>
    </>
  );
}

function OneAgent({ name }: { name: string }) {
  const [agent, setAgent] = useState<Defined>();
  const [wrong, setWrong] = useState("");
  useEffect(() => {
    ask<Defined>(`/v1/agents/${encodeURIComponent(name)}`).then(setAgent, (error) => setWrong(error.message));
  }, []);
  if (wrong) return <Trouble text={wrong} />;
  if (!agent) return <p class="waiting">Looking…</p>;
  return (
    <>
      <p class="back">
        <a href="#/agents">All agents</a>
      </p>
      <h1>{agent.name}</h1>
      <p>{agent.description}</p>
      <AgentFacts agent={agent} />
      <Ways agent={agent} />
      <section class={agent.problems.length ? "card wrong" : "card"} aria-labelledby="check">
        <h2 id="check">What checking it has said</h2>
        {[...agent.problems, ...agent.notes].map((line) => (
          <p>{line}</p>
        ))}
        {!agent.problems.length && !agent.notes.length && <p>{agent.file} holds, and nothing is missing.</p>}
      </section>
      <section class="card" aria-labelledby="definition">
        <h2 id="definition">Its definition, {agent.file}</h2>
        <pre class="source" tabIndex={0} role="region" aria-label={agent.file}>
          {agent.definition}
        </pre>
        <p class="actions">
          <CopyButton text={() => agent.definition}>Copy</CopyButton>
        </p>
      </section>
    </>
  );
}

function AgentFacts({ agent }: { agent: Agent }) {
  const facts: [string, string][] = [
    ["Model", agent.rehearsal ? "rehearsal" : agent.model],
    ["Tools", agent.tools.join(", ") || "none"],
    ["Memory", agent.memory ? "yes" : "none"],
    ["Time", seconds(agent.timeout_s)],
  ];
  return (
    <dl class="facts">
      {facts.map(([head, text]) => (
        <div>
          <dt>{head}</dt>
          <dd>{text}</dd>
        </div>
      ))}
    </dl>
  );
}

function Ways({ agent }: { agent: Agent }) {
  return (
    <p class="actions">
      <a href={`#/chat/${encodeURIComponent(agent.name)}`}>Chat with {agent.name}</a>
      <a href={`#/runs?agent=${encodeURIComponent(agent.name)}`}>Runs of {agent.name}</a>
    </p>
  );
}
