import { useQuery } from '@tanstack/react-query';
import { Link, useNavigate, useParams, useSearch } from '@tanstack/react-router';
import { useEffect, useRef, useState } from 'react';
import { newIdempotencyKey } from '../client.ts';
import { StopWarning } from '../idle/stop-warning.tsx';
import { usePolling, useTopic } from '../live/live.ts';
import { useTitle } from '../shell.tsx';
import { Icon, Spinner } from '../ui/icons.tsx';
import { Problem } from '../ui/problem.tsx';
import { Actions } from '../workspaces/actions.tsx';
import { workspaceQuery } from '../workspaces/queries.ts';
import { Status } from '../workspaces/status.tsx';
import { serverRoute, type TerminalRoute } from './routes.ts';
import type { End } from './session.ts';
import { Terminal } from './terminal.tsx';
import './terminal.css';

/** Backoff between attempts to reconnect. */
const pausesMs = [500, 1_000, 2_000, 4_000, 8_000];

/** The name of this tab's terminal, which survives a reload. */
function terminalNameOfTab(workspace: string): string {
  const key = `cde.terminal.${workspace}`;
  const known = sessionStorage.getItem(key);
  if (known) return known;
  const made = newIdempotencyKey().slice(0, 12);
  sessionStorage.setItem(key, made);
  return made;
}

const screenReaderKey = 'cde.terminal.screen-reader';

/** A shell in the workspace, filling the page. */
export function TerminalPage() {
  const { owner, name } = useParams({ from: '/signed-in/workspaces/$owner/$name/terminal' });
  useTitle(`${name} terminal`);
  const query = useQuery({ ...workspaceQuery(`${owner}~${name}`), refetchInterval: usePolling() });
  const workspace = query.data;
  useTopic(workspace ? `workspace:${workspace.id}` : null);
  const [attempt, setAttempt] = useState(0);
  const [state, setState] = useState<'opening' | 'open' | End>('opening');
  const [route, setRoute] = useState<TerminalRoute>(serverRoute);
  const [screenReader, setScreenReader] = useState(() => localStorage.getItem(screenReaderKey) === 'on');
  const ready = workspace?.status === 'running';
  // An open terminal stays with its content when the workspace stops.
  const [begun, setBegun] = useState(false);
  useEffect(() => {
    if (ready) setBegun(true);
  }, [ready]);

  // In the URL, so that the link opens the same terminal elsewhere.
  const { terminal } = useSearch({ from: '/signed-in/workspaces/$owner/$name/terminal' });
  const navigate = useNavigate();
  useEffect(() => {
    if (!terminal)
      void navigate({
        to: '/workspaces/$owner/$name/terminal',
        params: { owner, name },
        search: { terminal: terminalNameOfTab(`${owner}/${name}`) },
        replace: true,
      });
  }, [terminal, owner, name, navigate]);

  const reconnect = () => {
    setState('opening');
    setAttempt((count) => count + 1);
  };
  // The shell still runs, so reconnect until that succeeds or the workspace stops.
  const failures = useRef(0);
  const lost = typeof state === 'object' && !state.ended && !state.refused && ready;
  // biome-ignore lint/correctness/useExhaustiveDependencies: once for each lost connection
  useEffect(() => {
    if (!lost) return;
    const pause = pausesMs[Math.min(failures.current, pausesMs.length - 1)]!;
    failures.current += 1;
    const timer = setTimeout(reconnect, pause);
    addEventListener('online', reconnect, { once: true });
    return () => {
      clearTimeout(timer);
      removeEventListener('online', reconnect);
    };
  }, [lost, attempt]);
  return (
    <main id="main" className="terminal-page">
      <header>
        <h1>
          <Link to="/workspaces/$owner/$name" params={{ owner, name }}>
            {name}
          </Link>
        </h1>
        {workspace && <Status workspace={workspace} />}
        <span className="muted small-text" role="status">
          {begun && state === 'opening' && 'Opening a shell…'}
        </span>
        {begun && route.measured && state === 'open' && (
          <span className="muted small-text" title={`${route.measured}, to the workspace and back`}>
            over {route.satellite?.name ?? 'the server'}
          </span>
        )}
        <div className="end">
          <label className="choice small-text">
            <input
              type="checkbox"
              checked={screenReader}
              onChange={(event) => {
                setScreenReader(event.target.checked);
                localStorage.setItem(screenReaderKey, event.target.checked ? 'on' : 'off');
              }}
            />
            Screen reader support
          </label>
        </div>
      </header>
      {typeof state === 'object' && (
        <div className={state.ended ? 'notice good' : 'notice'} role="alert">
          {!state.ended && <Icon name="warning" />}
          <span>
            {state.words} {lost && 'Connecting again…'}
          </span>
          <span className="end row">
            {ready ? (
              <button
                type="button"
                className="button small"
                // biome-ignore lint/a11y/noAutofocus: pressing Enter reconnects, as in other terminals
                autoFocus
                onClick={reconnect}
              >
                {state.ended ? 'New shell' : 'Reconnect'}
              </button>
            ) : (
              workspace && <Actions workspace={workspace} compact />
            )}
          </span>
        </div>
      )}
      {workspace && <StopWarning workspace={workspace} />}
      {begun && workspace && terminal ? (
        <Terminal
          workspace={workspace.id}
          name={terminal}
          attempt={attempt}
          screenReader={screenReader}
          onRoute={setRoute}
          onOpen={() => setState('open')}
          onShown={() => {
            failures.current = 0;
          }}
          onEnd={setState}
        />
      ) : query.error ? (
        <Problem error={query.error} retry={() => query.refetch()} />
      ) : workspace ? (
        <div className="empty">
          <strong>{name} is not running</strong>
          {workspace.reason && <p>{workspace.reason}</p>}
          <p>The terminal opens as soon as it is.</p>
          <div className="row">
            <Actions workspace={workspace} />
          </div>
        </div>
      ) : (
        <p className="row muted">
          <Spinner /> Loading…
        </p>
      )}
    </main>
  );
}
