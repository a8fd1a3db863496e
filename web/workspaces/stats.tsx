import { homeSpaceWarning } from '@cde/api/home-space.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import { useQuery } from '@tanstack/react-query';
import { bytes } from '../ui/format.ts';
import { Ago } from '../ui/time.tsx';
import { statsQuery } from './queries.ts';

// The agent reports every 30 s.
const askEveryMs = 15_000;

/** The agent's last report of CPU, memory, home and sessions. */
export function Stats({ workspace }: { workspace: Workspace }) {
  const running = workspace.status === 'running';
  const query = useQuery({
    ...statsQuery(workspace.id),
    enabled: running,
    refetchInterval: askEveryMs,
  });
  if (!running) return null;
  const stats = query.data;
  const homeWarning = stats ? homeSpaceWarning(stats) : null;
  return (
    <section className="panel" aria-labelledby="stats-title">
      <header>
        <h2 id="stats-title">Use</h2>
        {stats && (
          <span className="end muted small-text">
            <Ago at={stats.at} />
          </span>
        )}
      </header>
      <div className="body">
        {!stats ? (
          <p className="muted">The agent has not reported yet.</p>
        ) : (
          <dl className="facts">
            <dt>CPU</dt>
            <dd>{Math.round(stats.cpuPercent)} % of a core</dd>
            <dt>Memory</dt>
            <dd>
              <Meter label="Memory" used={stats.memoryUsedBytes} total={stats.memoryLimitBytes} />
            </dd>
            <dt>Home</dt>
            <dd>
              <Meter label="Home" used={stats.homeUsedBytes} total={stats.homeTotalBytes} />
              {homeWarning !== null && (
                <div className="notice stop-warning" role="status">
                  The disk of the home is {homeWarning}. Programs fail when it is full: delete what you no
                  longer need, or ask for a larger home.
                </div>
              )}
            </dd>
            <dt>Sessions</dt>
            <dd>{stats.sessions.length === 0 ? 'none' : countKinds(stats.sessions)}</dd>
          </dl>
        )}
      </div>
    </section>
  );
}

function countKinds(sessions: { kind: string }[]): string {
  const counts = new Map<string, number>();
  for (const { kind } of sessions) counts.set(kind, (counts.get(kind) ?? 0) + 1);
  return [...counts].map(([kind, count]) => `${count} ${kind}`).join(', ');
}

function Meter({ label, used, total }: { label: string; used: number | null; total: number | null }) {
  if (used === null) return <span className="muted">not measured yet</span>;
  if (!total)
    return (
      <>
        {bytes(used)} <span className="muted">(not limited here)</span>
      </>
    );
  const share = used / total;
  return (
    <span className="meter-row">
      <meter aria-label={label} min={0} max={total} high={total * 0.85} optimum={0} value={used} />
      <span className="nowrap">
        {bytes(used)} of {bytes(total)} <span className="muted">({Math.round(share * 100)} %)</span>
      </span>
    </span>
  );
}
