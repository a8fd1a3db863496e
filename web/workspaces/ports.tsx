import { listPorts, type PortLevel, sharePort, unsharePort, type WorkspacePort } from '@cde/api/ports.ts';
import type { Workspace } from '@cde/api/workspaces.ts';
import { queryOptions, useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { call } from '../client.ts';
import { connects, operates, useMe } from '../me.ts';
import { ConfirmDialog } from '../ui/confirm.tsx';
import { Icon } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';
import { sayDone, sayFailed } from '../ui/toast.tsx';

// The agent reports every 30 s.
const askEveryMs = 15_000;

const portsQuery = (workspaceId: string) =>
  queryOptions({
    queryKey: ['ports', workspaceId],
    queryFn: ({ signal }) => call(listPorts, { params: { workspace: workspaceId }, signal }),
  });

const words: Record<PortLevel, string> = {
  owner: 'me',
  'signed-in': 'everyone signed in',
  public: 'anyone',
};

/** The ports that listen, whom they are shared with, and their URLs. The owner can change the sharing. */
export function Ports({ workspace }: { workspace: Workspace }) {
  const me = useMe();
  const client = useQueryClient();
  const mine = connects(me, workspace.owner);
  /** Operators of the workspace can stop sharing a port, but not share one. */
  const mayEnd = operates(me, workspace.owner);
  const running = workspace.status === 'running';
  const query = useQuery({ ...portsQuery(workspace.id), refetchInterval: askEveryMs });
  const [toPublic, setToPublic] = useState<number | null>(null);

  const refresh = () => client.invalidateQueries({ queryKey: portsQuery(workspace.id).queryKey });
  const set = async (port: number, level: PortLevel | null) => {
    const params = { workspace: workspace.id, port };
    await (level === null ? call(unsharePort, { params }) : call(sharePort, { params, body: { level } }));
    sayDone(level === null ? `Stopped sharing port ${port}.` : `Shared port ${port} with ${words[level]}.`);
    await refresh();
  };
  const change = useMutation({
    mutationFn: ({ port, level }: { port: number; level: PortLevel | null }) => set(port, level),
    onError: (error, { port }) => {
      sayFailed(`Could not change port ${port}.`, error);
      return refresh();
    },
  });
  const choose = (port: number, level: PortLevel | null) =>
    level === 'public' ? setToPublic(port) : change.mutate({ port, level });

  const ports = query.data;
  if (!running && !ports?.items.length) return null;
  const levels = allowed(ports?.mostLevel ?? 'off');
  return (
    <section className="panel" aria-labelledby="ports-title">
      <header>
        <h2 id="ports-title">Ports</h2>
      </header>
      <div className="body stack tight">
        {query.error && !ports ? (
          <Problem error={query.error} retry={() => query.refetch()} />
        ) : !ports?.items.length ? (
          <p className="muted">No open ports. A port appears here when a program listens on it.</p>
        ) : (
          <ul className="ports">
            {ports.items.map((port) => (
              <Row
                key={port.port}
                port={port}
                levels={mine ? levels : null}
                mayEnd={mayEnd}
                busy={change.isPending}
                onChoose={(level) => choose(port.port, level)}
              />
            ))}
          </ul>
        )}
        {mine && levels.length > 0 && (
          <AddPort busy={change.isPending} onAdd={(port) => change.mutate({ port, level: 'owner' })} />
        )}
        {ports?.mostLevel === 'off' && <p className="hint">Sharing ports is turned off on this server.</p>}
        {mine && ports?.by === 'path' && levels.length > 0 && (
          <p className="hint">
            Pages open in a sandbox without cookies, because this server has no wildcard name. If a program
            needs more, use <code>cde port-forward {workspace.name} PORT</code>.
          </p>
        )}
      </div>
      {toPublic !== null && (
        <ConfirmDialog
          title={`Share port ${toPublic} with anyone`}
          keep="Cancel"
          confirm="Share with anyone"
          act={() => set(toPublic, 'public')}
          onClose={() => {
            setToPublic(null);
            void refresh();
          }}
        >
          Anyone who can reach this server can open the port without signing in, and use the program behind
          it.
        </ConfirmDialog>
      )}
    </section>
  );
}

/** The levels that the server allows. */
function allowed(max: PortLevel | 'off'): PortLevel[] {
  const all: PortLevel[] = ['owner', 'signed-in', 'public'];
  return max === 'off' ? [] : all.slice(0, all.indexOf(max) + 1);
}

function Row({
  port,
  levels,
  mayEnd,
  busy,
  onChoose,
}: {
  port: WorkspacePort;
  /** The levels to choose from; null if this user cannot. */
  levels: PortLevel[] | null;
  mayEnd: boolean;
  busy: boolean;
  onChoose: (level: PortLevel | null) => void;
}) {
  const { level, limitedTo } = port;
  const shown = levels && level && !levels.includes(level) ? [...levels, level] : levels;
  return (
    <li>
      <span className="port">
        {port.url ? (
          <a href={port.url} target="_blank" rel="noopener noreferrer">
            {port.port} <Icon name="link" />
          </a>
        ) : (
          port.port
        )}
        {port.elsewhere.map(({ satellite, region, url }) => (
          <a
            key={satellite}
            className="small-text"
            href={url}
            target="_blank"
            rel="noopener noreferrer"
            title={`The same port over the satellite ${satellite}, which can read the traffic`}
          >
            {' '}
            {region || satellite}
          </a>
        ))}
      </span>
      <span className="muted small-text process">{port.listening ? port.process : 'nothing listens'}</span>
      {shown ? (
        <select
          aria-label={`Share port ${port.port} with`}
          value={level ?? ''}
          disabled={busy || (shown.length === 0 && level === null)}
          onChange={(event) => onChoose((event.target.value || null) as PortLevel | null)}
        >
          <option value="">not shared</option>
          {shown.map((one) => (
            <option key={one} value={one}>
              {words[one]}
            </option>
          ))}
        </select>
      ) : (
        <>
          <span className="chip">
            {level === null ? 'not shared' : level === 'owner' ? 'its owner' : words[level]}
          </span>
          {mayEnd && level !== null && (
            <button type="button" className="button small" disabled={busy} onClick={() => onChoose(null)}>
              Stop sharing
            </button>
          )}
        </>
      )}
      {level !== null && limitedTo !== level && (
        <span className="hint">
          This server allows less:{' '}
          {limitedTo === null ? 'nobody can open it' : `it is treated as ${limitedTo}`}.
        </span>
      )}
    </li>
  );
}

/** Shares a port that the agent has not reported yet. */
function AddPort({ busy, onAdd }: { busy: boolean; onAdd: (port: number) => void }) {
  function submit(event: FormEvent<HTMLFormElement>) {
    event.preventDefault();
    onAdd(Number(new FormData(event.currentTarget).get('port')));
    event.currentTarget.reset();
  }
  return (
    <form className="row add-port" onSubmit={submit}>
      <input
        name="port"
        type="number"
        min={1}
        max={65535}
        required
        placeholder="Another port"
        aria-label="Another port"
      />
      <button type="submit" className="button small" disabled={busy}>
        Share with me
      </button>
    </form>
  );
}
