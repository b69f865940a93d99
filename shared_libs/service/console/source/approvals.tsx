// Calls that wait for a person: what they would do, and the decision about each.

import { useState } from "preact/hooks";
import { post } from "./api";
import { Text, Trouble } from "./parts";
import type { Call } from "./types";
import { pretty } from "./words";

export function Approvals({ run, calls, onDecided }: { run: string; calls: Call[]; onDecided: () => void }) {
  const [wrong, setWrong] = useState("");
  const [busy, setBusy] = useState(false);
  const [reasons, setReasons] = useState<Record<string, string>>({});
  const decide = async (call: Call, approved: boolean) => {
    setBusy(true);
    const reason = reasons[call.call_id]?.trim();
    try {
      await post(`/v1/runs/${encodeURIComponent(run)}/decisions?background=true`, {
        decisions: { [call.call_id]: reason ? { approved, reason } : approved },
      });
      onDecided();
    } catch (error) {
      setWrong((error as Error).message);
    } finally {
      setBusy(false);
    }
  };
  return (
    <section class="card waits" aria-labelledby="waits">
      <h2 id="waits">Waits for your decision</h2>
      {calls.map((call) => (
        <div class="call" key={call.call_id}>
          <h3>{call.tool}</h3>
          <Text text={pretty(call.input)} code />
          <label>
            Reason
            <input
              value={reasons[call.call_id] ?? ""}
              onInput={(event) => setReasons({ ...reasons, [call.call_id]: event.currentTarget.value })}
            />
          </label>
          <button type="button" class="main" disabled={busy} onClick={() => decide(call, true)}>
            Allow {call.tool}
          </button>
          <button type="button" disabled={busy} onClick={() => decide(call, false)}>
            Refuse {call.tool}
          </button>
        </div>
      ))}
      {wrong && <Trouble text={wrong} />}
    </section>
  );
}
